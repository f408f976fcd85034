/* The board of the room Rank: completions as cards in rows, one row for each rank. Equal ranks share a row. */

import { fill, h } from "./dom.js";

const LETTERS = "ABCDEFGHI";

export class Board {
  constructor(onchange) {
    this.onchange = onchange;
    this.completions = []; // in the order of this person
    this.rankOf = new Map(); // place -> rank
    this.chosen = null; // place of the card that number keys rank
    this.element = h("div", { class: "stack rank-board" });
  }

  /** Show completions, with the ranks by place of an earlier label. */
  show(completions, ranks) {
    this.completions = completions;
    this.rankOf = new Map(ranks?.map((rank, place) => [place, rank]) ?? []);
    this.chosen = completions[0]?.place ?? null;
    this.#draw();
  }

  clear() {
    this.show([], null);
  }

  isComplete() {
    return this.completions.length > 0 && this.rankOf.size === this.completions.length;
  }

  isUntouched() {
    return this.completions.length > 0 && this.rankOf.size === 0;
  }

  /** The ranks by place; those of an untouched board are a tie of all. */
  ranks() {
    return this.completions.map((_, place) => this.rankOf.get(place) ?? 1);
  }

  setRanks(ranks) {
    this.rankOf = new Map(ranks.map((rank, place) => [place, rank]));
    this.#draw();
    this.focus();
    this.onchange();
  }

  /** Give the chosen completion a rank, and choose the next one without. */
  rankChosen(rank) {
    if (this.chosen !== null && rank <= this.completions.length) this.#setRank(this.chosen, rank);
  }

  /** Choose the card before or after the chosen one, as they stand on the board. */
  move(step) {
    const places = [...this.element.querySelectorAll(".rank-card")].map((card) => Number(card.dataset.place));
    const next = places[places.indexOf(this.chosen) + step];
    if (next !== undefined) this.chosen = next;
    this.focus();
  }

  focus() {
    this.element.querySelector(`[data-place="${this.chosen}"]`)?.focus();
  }

  #setRank(place, rank) {
    this.rankOf.set(place, rank);
    const unranked = this.completions.find((completion) => !this.rankOf.has(completion.place));
    this.chosen = unranked ? unranked.place : place;
    this.#draw();
    this.focus();
    this.onchange();
  }

  #draw() {
    const unranked = this.completions.filter((completion) => !this.rankOf.has(completion.place));
    const rows = this.completions.map((_, number) => this.#row(number + 1));
    fill(this.element, unranked.length > 0 && h("div", { class: "rank-row rank-unranked" }, h("h3", {}, "Not ranked yet"), unranked.map((one) => this.#card(one))), rows);
  }

  #row(rank) {
    const count = this.completions.length;
    const note = rank === 1 ? "best" : rank === count ? "worst" : "";
    const cards = this.completions.filter((completion) => this.rankOf.get(completion.place) === rank);
    const title = h("h3", {}, `${rank}`, note && h("span", { class: "muted" }, ` ${note}`), cards.length > 1 && h("span", { class: "muted" }, " tie"));
    const row = h("div", { class: "rank-row", "data-rank": rank }, title, cards.map((one) => this.#card(one)));
    row.addEventListener("dragover", (event) => {
      event.preventDefault(); // a place to drop on
      row.classList.add("rank-over");
    });
    row.addEventListener("dragleave", () => row.classList.remove("rank-over"));
    row.addEventListener("drop", (event) => {
      event.preventDefault();
      row.classList.remove("rank-over");
      if (this.dragged !== undefined) this.#setRank(this.dragged, rank);
    });
    return row;
  }

  #card(completion) {
    const { place, text } = completion;
    const letter = LETTERS[this.completions.indexOf(completion)];
    const rank = this.rankOf.get(place);
    const name = `Completion ${letter}, ${rank ? `rank ${rank}` : "not ranked"}: ${text.slice(0, 500)}`;
    const card = h("div", { class: "card rank-card", tabIndex: 0, draggable: true, "data-place": place, role: "group", ariaLabel: name });
    card.append(
      h("div", { class: "row" }, h("strong", {}, letter), h("span", { class: "push" }), this.#buttons(completion, letter, rank)),
      h("div", { class: "text" }, text || h("em", { class: "muted" }, "(nothing)")),
    );
    card.addEventListener("focusin", () => (this.chosen = place));
    card.addEventListener("dragstart", (event) => {
      this.dragged = place;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", letter);
    });
    card.addEventListener("dragend", () => (this.dragged = undefined));
    return card;
  }

  /** For touch screens, and for whoever does not know the keys. */
  #buttons(completion, letter, rank) {
    return this.completions.map((_, number) =>
      h("button", {
        type: "button", class: "small", ariaLabel: `Rank ${letter} ${number + 1}`, "aria-pressed": String(rank === number + 1), tabIndex: -1,
        onclick: () => this.#setRank(completion.place, number + 1),
      }, `${number + 1}`),
    );
  }
}
