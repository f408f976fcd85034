/* Who ranks and votes: a nickname, typed once and kept in this browser. Nothing else about a person is asked or stored. */

import { field, h } from "./dom.js";

const KEY = "crawl2chat-nickname";
const PATTERN = /^[\p{L}\p{N}_](?:[\p{L}\p{N}_ .'\-]{0,30}[\p{L}\p{N}_.])?$/u; // as tasks/feedback/requests.py has it

/** The nickname that was typed in any room, or "". */
export const nickname = () => localStorage.getItem(KEY) ?? "";

const fields = []; // of all rooms: they show the same nickname

function showEverywhere() {
  for (const one of fields) one.value = nickname();
}

window.addEventListener("storage", (event) => event.key === KEY && showEverywhere()); // changed in another tab

/** A field for the nickname. `onchange` is called with a new one; an unfit one is marked, and not kept. */
export function nicknameField(onchange) {
  const input = h("input", { type: "text", value: nickname(), maxLength: 32, autocomplete: "nickname", spellcheck: false });
  fields.push(input);
  const made = field("Your nickname", input, "Kept in this browser, and with your rankings and votes. No real name needed.");
  const hint = made.querySelector("small").textContent;
  input.addEventListener("change", () => {
    const name = input.value.trim();
    const isFit = PATTERN.test(name);
    input.setAttribute("aria-invalid", String(!isFit));
    made.querySelector("small").textContent = isFit ? hint : "Give 1 to 32 letters or digits; spaces, dots, hyphens and apostrophes within.";
    if (isFit && name !== nickname()) {
      localStorage.setItem(KEY, name);
      showEverywhere();
      onchange(name);
    }
  });
  return { element: made, input };
}
