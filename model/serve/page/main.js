/* The page: navigation between rooms, errors, the API key.

   The hash names the room, with what it opens with: #tokens?text=Hello. A room is made when it is first opened and stays in the page, hidden,
   so that what a person has typed is there when they come back. A room module exports `room`: id, title, mount(section, api), once, and
   every time it is opened show(parameters), where a link can name something, and load(), which asks the server for what the room still lacks. */

import { api, orNull } from "./api.js";
import { h, prose } from "./dom.js";
import { room as arena } from "./arena.js";
import { room as chat } from "./chat.js";
import { room as playground } from "./playground.js";
import { room as rank } from "./rank.js";
import { room as tokens } from "./tokens.js";

const ROOMS = [chat, playground, tokens, rank, arena];
const SHOWN_ERRORS = 3; // older ones make room: a server that is gone fails every request
const ASK_AGAIN_MS = 2000;
const main = document.getElementById("room");
const opened = new Map(); // room id -> its section

function link(room) {
  return h("li", {}, h("a", { href: `#${room.id}`, id: `to-${room.id}` }, room.title));
}

function currentHash() {
  const [id, query] = location.hash.slice(1).split("?");
  return { room: ROOMS.find((room) => room.id === id), parameters: new URLSearchParams(query ?? "") };
}

function open() {
  const { room = ROOMS[0], parameters } = currentHash();
  if (!opened.has(room.id)) {
    const section = h("section", { class: `room room-${room.id}`, ariaLabel: room.title });
    main.append(section);
    opened.set(room.id, section);
    room.mount(section, api);
  }
  for (const [id, section] of opened) section.hidden = id !== room.id;
  for (const other of ROOMS) {
    const anchor = document.getElementById(`to-${other.id}`);
    if (other === room) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  document.getElementById("errors").replaceChildren(); // they belonged to the other room
  document.title = `${room.title} · crawl2chat`;
  room.show?.(parameters);
  room.load();
}

let isWaiting = false;

/** Ask until a server that is gone is back; then the errors go, and the room gets what it could not load. */
async function waitForServer() {
  if (isWaiting) return;
  isWaiting = true;
  do await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  while (!(await api.isUp()));
  isWaiting = false;
  document.getElementById("errors").replaceChildren();
  (currentHash().room ?? ROOMS[0]).load();
}

function showError(message) {
  const errors = document.getElementById("errors");
  const same = [...errors.children].find((one) => one.dataset.message === message);
  same?.remove();
  const dismiss = h("button", { type: "button", class: "quiet", ariaLabel: "Dismiss" }, "×");
  const line = h("div", { class: "error", "data-message": message }, h("span", {}, prose(message)), dismiss);
  dismiss.addEventListener("click", () => line.remove());
  errors.append(line);
  while (errors.children.length > SHOWN_ERRORS) errors.firstChild.remove();
}

function askKey() {
  document.getElementById("key").hidden = false; // a server without a key never asks for one
  const dialog = document.getElementById("key-dialog");
  document.getElementById("key-refused").hidden = !api.key;
  document.getElementById("key-value").value = api.key;
  if (!dialog.open) dialog.showModal();
}

function takeKey(event) {
  if (event.target.returnValue !== "save") return;
  api.key = document.getElementById("key-value").value.trim();
  location.reload(); // every room asks again, with the key
}

/** A link to the report card, where the run has one. */
async function linkReport() {
  const link = document.getElementById("report");
  link.hidden = !(await orNull(api.get("/report", { quiet: true })))?.artifact;
  link.addEventListener("click", async (event) => {
    if (!api.key) return;
    event.preventDefault(); // following a link sends no key, so the card becomes a download
    const blob = await orNull(api.blob(link.href));
    if (blob) h("a", { href: URL.createObjectURL(blob), download: "report-card.html" }).click();
  });
}

document.getElementById("rooms").append(...ROOMS.map(link));
document.getElementById("key").addEventListener("click", askKey);
document.getElementById("key-dialog").addEventListener("close", takeKey);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is the room's
  main.focus();
});
api.onError = showError;
api.onGone = waitForServer;
document.getElementById("key").hidden = !api.key;
api.onKeyNeeded = askKey;
window.addEventListener("hashchange", open);
open();
linkReport();
