/* The room Arena: two models answer a prompt, a person votes without knowing which is which, and then sees the names.

   The server draws the models and their sides, and sends the names with the answer to the vote: see tasks/feedback/arena_routes.py. */

import { standings } from "./arena_table.js";
import { button, field, fill, h } from "./dom.js";
import { keepText } from "./kept.js";
import { nickname, nicknameField } from "./person.js";

const SIDES = { left: "Left", right: "Right" };
const CHOICES = [["left", "Left is better", "1"], ["right", "Right is better", "2"], ["tie", "Equally good", "3"], ["both_bad", "Both are bad", "4"]];
const SAMPLING = { temperature: 0.7, max_tokens: 256 };

class ArenaRoom {
  constructor(root, api) {
    this.root = root;
    this.api = api;
    this.battle = null; // its number, while it can be voted on
    this.abort = null;
    this.person = nicknameField(() => this.#update());
    this.prompt = h("textarea", { rows: 2, placeholder: "Ask both models something", oninput: () => this.#update() });
    keepText("arena-prompt", this.prompt);
    this.missing = h("small", {}, "Type a nickname first.");
    this.ask = button("Ask both", () => this.#start(), { kind: "primary" });
    this.status = h("p", { role: "status", class: "arena-status" });
    this.table = h("div", { class: "stack" });
    this.sides = Object.fromEntries(Object.entries(SIDES).map(([side, name]) => [side, this.#pane(name)]));
    this.votes = CHOICES.map(([winner, text, key]) => button(`${text} (${key})`, () => this.#vote(winner)));
    this.#build();
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #pane(name) {
    const title = h("h2", {}, name);
    const text = h("div", { class: "text arena-text" });
    return { title, text, element: h("article", { class: "card", ariaLabel: `${name} model` }, title, text) };
  }

  #build() {
    const form = h("div", { class: "card stack" }, this.person.element, field("Prompt", this.prompt, "Ctrl+Enter asks."), h("div", { class: "row" }, this.ask, this.missing));
    this.battleground = h("div", { class: "stack" }, h("div", { class: "columns" }, this.sides.left.element, this.sides.right.element), h("div", { class: "row arena-votes" }, this.votes));
    this.battleground.hidden = true;
    this.root.append(
      h("h1", {}, "Arena"),
      h("p", { class: "muted" }, "Two models answer, you say which answer is better, and then you see who wrote it."),
      h("div", { class: "stack" }, form, this.status, this.battleground, h("div", { class: "card" }, h("h2", {}, "Ratings"), this.table)),
    );
    this.#update();
  }

  /** Draw the table of ratings again: others vote too. */
  async load() {
    this.#update(); // the nickname may be new
    try {
      const found = await this.api.get("/feedback/arena");
      fill(this.table, standings(found));
      if (found.num_models < 2) this.status.textContent = "A battle needs two models, and this server has one.";
    } catch {
      // The error is on top of the page.
    }
  }

  async #start() {
    if (this.ask.disabled) return;
    this.abort?.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.battle = null;
    this.#update();
    try {
      const { battle } = await this.api.post("/feedback/arena/battles", { who: nickname(), prompt: this.prompt.value, ...SAMPLING }, { signal });
      this.battleground.hidden = false;
      this.status.textContent = "Both models are answering …";
      for (const [side, name] of Object.entries(SIDES)) fill(this.sides[side].title, name);
      await Promise.all(Object.keys(SIDES).map((side) => this.#read(battle, side, signal)));
      this.battle = battle;
      this.status.textContent = "Which answer is better?";
    } catch {
      if (!signal.aborted) this.status.textContent = "";
    }
    this.#update();
    if (this.battle) this.votes[0].focus();
  }

  async #read(battle, side, signal) {
    const { text } = this.sides[side];
    fill(text);
    for await (const event of this.api.stream(`/feedback/arena/battles/${battle}/${side}`, { who: nickname() }, { signal })) text.append(event.text);
    if (!text.textContent.trim()) fill(text, h("em", { class: "muted" }, "(nothing)"));
  }

  async #vote(winner) {
    const { battle } = this;
    if (battle === null) return;
    this.battle = null; // one vote
    this.#update();
    try {
      const named = await this.api.post("/feedback/arena/votes", { who: nickname(), battle, winner });
      for (const side of Object.keys(SIDES)) {
        const { name, artifact } = named[side];
        fill(this.sides[side].title, name, " ", artifact !== name && h("small", {}, artifact));
      }
      this.status.textContent = `Your vote counts. Left was ${named.left.name}, right was ${named.right.name}.`;
      await this.load();
    } catch {
      this.battle = battle;
    }
    this.#update();
    this.prompt.focus();
  }

  #update() {
    this.missing.hidden = Boolean(nickname());
    this.ask.disabled = !nickname() || !this.prompt.value.trim();
    for (const vote of this.votes) vote.disabled = this.battle === null;
  }

  #onKey(event) {
    if (this.root.hidden) return;
    if (event.key === "Enter" && event.ctrlKey && event.target === this.prompt) {
      event.preventDefault();
      this.#start();
    }
    const choice = CHOICES.find(([, , key]) => key === event.key);
    const isTyping = event.target.closest("input, textarea, select, dialog");
    if (choice && this.battle !== null && !isTyping && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      this.#vote(choice[0]);
    }
  }
}

export const room = {
  id: "arena",
  title: "Arena",
  mount(root, api) {
    this.made = new ArenaRoom(root, api);
  },
  load() {
    return this.made.load();
  },
};
