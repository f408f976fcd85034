/* The room Rank: several completions of a prompt, which a person puts in order.

   A completion is dragged to a rank, or gets it by its buttons or a number key; two on one rank are a tie. Everything works with the keyboard alone.
   The names of the models are not known here: see tasks/feedback/rank_routes.py. */

import { orNull } from "./api.js";
import { button, fill, h, prose } from "./dom.js";
import { nickname, nicknameField } from "./person.js";
import { Board } from "./rank_board.js";
import { RankSide } from "./rank_side.js";
import { IDEAS } from "./templates.js";

const HINT = "Drag each completion to a rank, or press its number; two on one rank are a tie.";
const KEYS =
  "Number keys rank the chosen completion, arrow keys choose another, Enter saves. D takes the draft, B marks all as bad, S skips, P goes back.";
const NOTHING_LEFT = "Nothing is left to rank. Add further prompts under “Add prompts”, or with `crawl2chat labels add`.";
const NO_PROMPTS = "There is nothing to rank yet. Add prompts under “Add prompts”, or rank answers to three examples.";

class RankRoom {
  constructor(root, api) {
    this.root = root;
    this.api = api;
    this.item = null;
    this.visited = []; // numbers of the prompts that were shown, so that a ranking can be corrected
    this.isBusy = false;
    this.board = new Board(() => this.#update());
    this.side = new RankSide(api, () => (this.item ? this.board.focus() : this.load())); // what is shown stays
    this.person = nicknameField(() => this.load());
    this.prompt = h("div", { class: "card rank-prompt" });
    this.status = h("p", { role: "status", class: "rank-status" });
    this.allBad = h("input", { type: "checkbox", onchange: () => this.#update() });
    this.save = button("Save and next", () => this.#save(), { kind: "primary" });
    this.draft = button("Take the model's draft", () => this.#takeDraft());
    this.skip = button("Skip", () => this.next(this.item?.prompt ?? 0), { kind: "quiet" });
    this.back = button("Previous", () => this.#previous(), { kind: "quiet" });
    this.examples = button("Begin with three examples", () => this.side.add(IDEAS), { kind: "primary" });
    this.retry = button("Let the models write again", () => this.#complete(), {});
    this.#build();
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #build() {
    const badLabel = h("label", { class: "check" }, this.allBad, "All are bad");
    this.actions = h("div", { class: "row rank-actions" }, this.save, badLabel, this.draft, h("span", { class: "push" }), this.back, this.skip);
    this.work = h("div", { class: "stack" }, this.prompt, this.retry, h("small", {}, HINT), this.board.element, this.actions, h("small", {}, KEYS));
    const examples = h("div", { class: "row" }, this.examples);
    const main = h("div", { class: "stack" }, h("div", { class: "card" }, this.person.element), this.status, examples, this.work);
    this.root.append(
      h("h1", {}, "Rank"),
      h("p", { class: "muted" }, "Put the completions of a prompt in order. Your rankings train the reward model."),
      h("div", { class: "with-side" }, main, this.side.element),
    );
    this.#clear();
  }

  /** Show guidelines and progress, and the first prompt. A ranking that has begun stays. */
  async load() {
    const progress = await orNull(this.side.refresh());
    const isSame = this.who === nickname();
    if (!progress || (isSame && (this.item || this.isBusy))) return;
    if (!isSame) this.visited = [];
    this.who = nickname();
    this.hasPrompts = progress.prompts > 0;
    if (this.who) await this.next(0);
    else this.#clear("Type a nickname to begin.");
  }

  /** The next prompt after a number that this person has not ranked. */
  async next(after) {
    if (!nickname()) return;
    await this.#during("", async () => {
      const { item } = await this.api.post("/feedback/rank/next", { who: nickname(), after });
      const isAgain = item && item.prompt === this.item?.prompt;
      if (item) await this.#show(item);
      else this.#clear(this.hasPrompts ? NOTHING_LEFT : NO_PROMPTS);
      this.examples.hidden = Boolean(item) || this.hasPrompts;
      if (isAgain) this.status.textContent = "This is the only prompt left.";
    });
  }

  async #show(item) {
    if (this.visited.at(-1) !== item.prompt) this.visited.push(item.prompt);
    this.item = item;
    this.work.hidden = false;
    fill(this.prompt, item.messages.map((turn) => h("div", {}, h("h2", {}, turn.role === "user" ? "Prompt" : turn.role), h("div", { class: "text" }, turn.content))));
    this.allBad.checked = item.label?.all_bad ?? false;
    this.usedDraft = false;
    if (item.completions.length) this.#place();
    else await this.#complete();
  }

  /** Let the models write the completions of this prompt. */
  async #complete() {
    const { prompt } = this.item;
    this.board.clear();
    this.retry.hidden = true;
    this.actions.hidden = true;
    await this.#during("The models are writing …", async () => {
      try {
        const body = { who: nickname(), prompt, ...this.side.sampling() };
        const { item } = await this.api.post("/feedback/rank/completions", body);
        if (this.item.prompt !== prompt) return; // the person has gone on meanwhile
        this.item = item;
        this.#place();
        const [wanted, count] = [body.num_completions, item.completions.length];
        if (count < wanted) this.status.textContent = `The models repeat themselves here: ${count} different completions instead of ${wanted}.`;
      } catch {
        this.retry.hidden = false; // the error is on top of the page
        this.draft.hidden = true;
        this.actions.hidden = false;
      }
    });
  }

  #place() {
    this.retry.hidden = true;
    this.actions.hidden = false;
    this.board.show(this.item.completions, this.item.label?.ranks);
    this.draft.hidden = !this.item.draft;
    this.status.textContent = this.item.label ? "You have ranked this prompt. Saving again corrects it." : "";
    this.#update();
    this.board.focus();
  }

  #takeDraft() {
    if (!this.item?.draft) return;
    this.usedDraft = true;
    this.board.setRanks(this.item.draft);
    this.status.textContent = "This is the draft of the reward model. Change what you see otherwise.";
  }

  async #save() {
    if (this.save.disabled || this.isBusy) return;
    const { prompt } = this.item;
    const body = {
      who: nickname(), prompt, ranks: this.board.ranks(), all_bad: this.allBad.checked, saw_draft: this.usedDraft, guidelines: this.side.version,
    };
    let isSaved = false; // where it fails, the ranking stays on the page, to be saved again
    await this.#during("", async () => {
      await this.api.post("/feedback/rank/labels", body);
      isSaved = true;
      this.side.refresh();
    });
    if (isSaved) await this.next(prompt);
  }

  async #previous() {
    if (this.visited.length < 2) return;
    this.visited.pop();
    const path = `/feedback/rank/prompts/${this.visited.at(-1)}?who=${encodeURIComponent(nickname())}`;
    await this.#during("", async () => this.#show((await this.api.get(path)).item));
  }

  /** Run something that takes time, with the buttons off. Errors are shown on top of the page already. */
  async #during(text, work) {
    this.isBusy = true;
    this.status.textContent = text;
    this.#update();
    try {
      await work();
      if (this.status.textContent === text) this.status.textContent = "";
    } catch {
      this.status.textContent = "";
    }
    this.isBusy = false;
    this.#update();
  }

  #update() {
    // "All are bad" alone is a ranking: a tie of all.
    const isRanked = this.board.isComplete() || (this.allBad.checked && this.board.isUntouched());
    this.save.disabled = this.isBusy || !this.item || !isRanked;
    this.back.disabled = this.isBusy || this.visited.length < 2;
    this.skip.disabled = this.isBusy;
  }

  #clear(text = "") {
    this.item = null;
    this.work.hidden = this.examples.hidden = true;
    this.board.clear();
    if (text) fill(this.status, prose(text));
  }

  #onKey(event) {
    const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select, dialog, summary, a");
    if (this.root.hidden || isTyping || event.ctrlKey || event.altKey || event.metaKey || !this.item || this.isBusy) return;
    const isOnButton = event.target.closest("button") && (event.key === "Enter" || event.key === " ");
    if (isOnButton) return; // the button is pressed
    const actions = {
      Enter: () => this.#save(),
      ArrowDown: () => this.board.move(1),
      ArrowUp: () => this.board.move(-1),
      d: () => this.#takeDraft(),
      b: () => this.allBad.click(),
      s: () => this.skip.click(),
      p: () => this.back.click(),
    };
    const action = /^[1-9]$/.test(event.key) ? () => this.board.rankChosen(Number(event.key)) : actions[event.key.toLowerCase()] ?? actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

export const room = {
  id: "rank",
  title: "Rank",
  mount(root, api) {
    this.made = new RankRoom(root, api);
  },
  load() {
    return this.made.load();
  },
};
