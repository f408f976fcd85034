/* A run of tokens as text, each one a thing to point at, click and reach with the arrow keys.

   A token is {id, text, bytes, logprob, top}: `bytes` as numbers, `logprob` in nats, `top` the likeliest tokens of its place in the same form.
   One token of a run takes part in the order of the Tab key; the arrows move from there, so that a page of tokens is one stop and not a thousand. */

import { h, percent, shown, visible } from "./dom.js";

const BINS = [0.01, 0.1, 0.5, 0.9]; // bounds of the colours of probability
export const BIN_LABELS = ["under 1%", "1 to 10%", "10 to 50%", "50 to 90%", "over 90%"];

/** The class of a probability's colour: p0 (unlikely) to p4. */
export function binOf(probability) {
  return `p${BINS.filter((bound) => probability >= bound).length}`;
}

/** The text of a token; its bytes where they are no whole characters. */
export function textOf(token) {
  if (!token.text.includes("\ufffd") || !token.bytes) return token.text;
  const written = (byte) => (byte < 0x80 ? String.fromCharCode(byte) : `\\x${byte.toString(16)}`);
  return token.bytes.map(written).join("");
}

/** The text of tokens, of which a character may have several. */
export const wholeText = (tokens) => new TextDecoder().decode(Uint8Array.from(tokens.flatMap((token) => token.bytes ?? [])));

/** What a probability view says of a token. */
export function describeProbability(token) {
  const chance = token.logprob === undefined || token.logprob === null ? "" : `, ${percent(Math.exp(token.logprob))}`;
  return `“${visible(textOf(token))}”${chance}`;
}

/** The legend of the colours of probability. */
export function probabilityLegend() {
  const swatches = BIN_LABELS.map((label, bin) => h("li", {}, h("span", { class: `token p${bin}`, ariaHidden: "true" }, "ab"), label));
  return h("ul", { class: "legend", ariaLabel: "Colours: probability of each token" }, swatches.reverse());
}

export class TokenRun {
  /** `describe(token, place)`: its name and tooltip; `classOf(token, place)`: its colours; `onpick(place)`: Enter or a click;
      `startsLine(token)`: a line break is shown before it. */
  constructor({ label, describe, classOf, onpick, startsLine = () => false }) {
    this.describe = describe;
    this.startsLine = startsLine;
    this.classOf = classOf;
    this.onpick = onpick;
    this.tokens = [];
    this.elements = [];
    this.current = 0;
    this.element = h("span", {
      class: "token-run",
      role: "group",
      ariaLabel: label,
      onclick: (event) => this.#pick(event),
      onkeydown: (event) => this.#key(event),
      onfocusin: (event) => this.#move(this.#placeOf(event.target)),
    });
  }

  /** Tokens after those that are shown. */
  append(tokens) {
    const made = tokens.map((token, step) => this.#make(token, this.tokens.length + step));
    this.tokens.push(...tokens);
    this.elements.push(...made);
    this.element.append(...made.flatMap((one, step) => (this.startsLine(tokens[step]) ? [h("br"), one] : [one])));
  }

  replace(tokens) {
    this.tokens = [];
    this.elements = [];
    this.current = 0;
    this.element.replaceChildren();
    this.append(tokens);
  }

  /** Mark one token as chosen; none with -1. */
  choose(place) {
    this.element.querySelector("[aria-pressed=true]")?.setAttribute("aria-pressed", "false");
    this.elements[place]?.setAttribute("aria-pressed", "true");
  }

  focus(place = this.current) {
    this.elements[place]?.focus();
  }

  #make(token, place) {
    const name = this.describe(token, place);
    const made = h("span", { class: `token ${this.classOf(token, place)}`, title: name, ariaLabel: name }, shown(textOf(token)));
    made.setAttribute("role", this.onpick ? "button" : "note");
    if (this.onpick) made.setAttribute("aria-pressed", "false");
    made.tabIndex = place === this.current ? 0 : -1;
    return made;
  }

  #placeOf(target) {
    return this.elements.indexOf(target.closest(".token"));
  }

  #pick(event) {
    const place = this.#placeOf(event.target);
    if (place >= 0) this.onpick?.(place);
  }

  #move(place) {
    if (place < 0) return;
    this.elements[this.current].tabIndex = -1;
    this.current = place;
    this.elements[place].tabIndex = 0;
  }

  #key(event) {
    const last = this.elements.length - 1;
    const place = { ArrowRight: this.current + 1, ArrowLeft: this.current - 1, Home: 0, End: last }[event.key];
    if (place !== undefined) this.focus(Math.min(Math.max(place, 0), last));
    else if (event.key === "Enter" || event.key === " ") this.onpick?.(this.current);
    else return;
    event.preventDefault();
  }
}
