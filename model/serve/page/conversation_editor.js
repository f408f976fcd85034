/* A conversation to edit, turn by turn: the role, the text, and of an assistant's turn whether it is learned. */

import { button, fill, h, select, upright } from "./dom.js";

const ROLES = ["system", "user", "assistant", "tool"];

export const EXAMPLE = [
  { role: "system", content: "Tools: calculator." },
  { role: "user", content: "What is 12 times 7?" },
  { role: "assistant", content: "Let me see.", tool_calls: [{ name: "calculator", arguments: "12*7" }] },
  { role: "tool", content: "84" },
  { role: "assistant", content: "It is 84." },
];

/** The messages of a JSON text; null where they are none. A link may hold anything. */
export function readConversation(json) {
  try {
    const messages = JSON.parse(json);
    const isTurn = (one) => ROLES.includes(one?.role) && typeof one.content === "string" && Array.isArray(one.tool_calls ?? []);
    return Array.isArray(messages) && messages.every(isTurn) ? messages : null;
  } catch {
    return null;
  }
}

/** {element, messages(), replace(messages)}. `onchange`: after every change. */
export function conversationEditor(messages, onchange) {
  const list = h("ol", { class: "turns" });
  const add = button("Add a turn", () => {
    const last = messages.at(-1)?.role;
    messages.push({ role: last === "user" ? "assistant" : "user", content: "" });
    draw();
    list.lastElementChild.querySelector("textarea").focus();
    onchange();
  });

  function turn(message, place) {
    const number = place + 1;
    const role = select(ROLES, message.role);
    role.ariaLabel = `Role of turn ${number}`;
    role.addEventListener("change", () => {
      message.role = role.value;
      if (message.role !== "assistant") delete message.tool_calls;
      draw();
      onchange();
    });
    const content = h("textarea", { rows: 1, value: message.content, ariaLabel: `Text of turn ${number}`, spellcheck: false });
    content.addEventListener("input", () => {
      message.content = content.value;
      onchange();
    });
    const remove = button("×", () => {
      messages.splice(place, 1);
      draw();
      onchange();
    }, { kind: "quiet", label: `Remove turn ${number}` });
    const calls = (message.tool_calls ?? []).map((call) => {
      const { name, arguments: given } = call?.function ?? call ?? {}; // OpenAI's form, or the project's
      return h("small", { class: "mono text" }, upright(`calls ${name}: ${given}`));
    });
    return h("li", {}, role, h("div", { class: "stack tight" }, content, calls), message.role === "assistant" ? learned(message, number) : h("span"), remove);
  }

  function learned(message, number) {
    const box = h("input", { type: "checkbox", checked: message.weight !== 0, ariaLabel: `Learn turn ${number}` });
    box.addEventListener("change", () => {
      message.weight = box.checked ? 1 : 0;
      onchange();
    });
    return h("label", { class: "check" }, box, "learned");
  }

  function draw() {
    fill(list, messages.map(turn));
  }

  draw();
  return {
    element: h("div", { class: "stack tight" }, list, h("div", { class: "row" }, add)),
    messages: () => messages,
    replace(others) {
      messages.splice(0, messages.length, ...others);
      draw();
    },
  };
}
