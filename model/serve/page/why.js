/* Why a model said something: its reply with the spans that stand word for word in the training data, and where each of them stands.

   Addresses and texts of pages are a stranger's: text stays text, and only http and https become links, which a person has to follow. */

import { button, fill, h, prose, shown, upright } from "./dom.js";

const bytesOf = (text) => new TextEncoder().encode(text);
const textOf = (bytes) => new TextDecoder().decode(bytes);
const detail = (text) => h("small", { class: "text" }, upright(text));
const oneLine = (text) => text.replace(/\s+/g, " ");

const [FEW, MANY] = [5, 100]; // spans

/** A button, and the part of the page that it opens. `ask(num)`: the answer of /why-said with so many spans. */
export class Why {
  constructor({ label, ask }) {
    this.ask = ask;
    this.button = button("Why?", () => (this.element.hidden ? this.open() : this.close()), { kind: "quiet small", label });
    this.button.setAttribute("aria-expanded", "false");
    this.status = h("p", { role: "status" });
    this.found = h("div", { class: "stack tight" });
    const close = button("Close", () => this.close({ focus: true }), { kind: "quiet small", label: "Close the explanation" });
    const header = h("div", { class: "row" }, h("h4", {}, "Why was this said?"), h("span", { class: "push" }), close);
    this.element = h("section", { class: "why", ariaLabel: label, hidden: true }, header, this.status, this.found);
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && this.close({ focus: true }));
  }

  async open() {
    if (!this.element.hidden) return;
    this.#show(true);
    await this.#search(FEW);
    this.element.scrollIntoView({ block: "nearest" });
  }

  async #search(num) {
    this.status.className = "muted";
    this.status.textContent = "Searching the training data…";
    this.found.replaceChildren();
    const asked = (this.asked = {});
    try {
      const answer = await this.ask(num);
      if (this.asked !== asked) return; // closed, and perhaps opened for another text
      this.status.textContent = upright(answer.summary);
      const more = button("Show more spans", () => this.#search(MANY), { kind: "small" });
      fill(this.found, explanation(answer, num === FEW && more));
    } catch (error) {
      if (error.name !== "ApiError") throw error;
      if (this.asked !== asked) return;
      // Without an index there is nothing wrong: the message says how to make one.
      if (error.code !== "no_index") this.status.className = "failed";
      fill(this.status, prose(error.message));
    }
  }

  close({ focus = false } = {}) {
    this.asked = null;
    this.#show(false);
    if (focus) this.button.focus();
  }

  #show(isOpen) {
    this.element.hidden = !isOpen;
    this.button.setAttribute("aria-expanded", String(isOpen));
  }
}

function explanation({ reply, spans, num_spans: numSpans, nowhere, in_other_words: similar }, more) {
  const marks = new Map(spans.map((span) => [span, []])); // the parts of the reply that a span covers
  const folds = new Map(spans.map((span, place) => [span, spanDetails(span, place === 0, marks)]));
  const text = markedReply(bytesOf(reply), spans, nowhere, marks, (span) => {
    folds.get(span).open = true;
    folds.get(span).querySelector("summary").focus();
  });
  return [
    h("p", { class: "text why-reply" }, text),
    numSpans > spans.length && h("div", { class: "row" }, h("small", {}, `The ${spans.length} rarest of ${numSpans} spans are marked; words without a mark stand in others.`), more),
    nowhere.length > 0 && h("p", { class: "muted" }, "Words with a ", h("span", { class: "why-nowhere" }, "wavy line"), " stand nowhere in the training data."),
    spans.length > 0 && h("div", { class: "stack tight", role: "group", ariaLabel: "Spans, the rarest first" }, [...folds.values()]),
    similar.length > 0 && h("details", { class: "why-fold" }, h("summary", {}, "Pages with the same words"), placeList(similar, "")),
  ];
}

/** The reply in parts. A part is of the first span that covers it, the rarest; a click opens that. */
function markedReply(bytes, spans, nowhere, marks, onpick) {
  const borders = [0, bytes.length, ...[...spans, ...nowhere].flatMap(({ start, stop }) => [start, stop])];
  const places = [...new Set(borders)].sort((one, other) => one - other);
  const covers = ({ start, stop }, place) => start <= place && place < stop;
  return places.slice(0, -1).map((place, number) => {
    const text = upright(textOf(bytes.subarray(place, places[number + 1])));
    const owners = spans.filter((span) => covers(span, place));
    if (!owners.length) return nowhere.some((one) => covers(one, place)) ? h("span", { class: "why-nowhere" }, text) : text;
    const part = h("mark", { onclick: () => onpick(owners[0]) }, text);
    for (const span of owners) marks.get(span).push(part);
    return part;
  });
}

/** A span with its places. While it is open or pointed at, its parts of the reply stand out. */
function spanDetails(span, open, marks) {
  const counts = Object.entries(span.counts).map(([kind, count]) => detail(`${count.toLocaleString("en")} in ${kind}`));
  const title = h("summary", {}, h("q", { class: "text" }, upright(oneLine(span.text))), " ", h("span", { class: "why-counts" }, counts));
  const fold = h("details", { class: "why-fold", open }, title, placeList(span.occurrences, span.text));
  const light = (isOn) => marks.get(span).forEach((part) => part.classList.toggle("is-chosen", isOn));
  fold.addEventListener("toggle", () => light(fold.open));
  fold.addEventListener("pointerenter", () => light(true));
  fold.addEventListener("pointerleave", () => light(fold.open));
  return fold;
}

const placeList = (places, text) => h("ul", { class: "why-places" }, places.map((place) => h("li", {}, place.part ? turnOf(place) : pageOf(place), context(place, text))));

/** Where a page was crawled. */
function pageOf({ source, url, host, date, file, offset }) {
  const where = [source, date.slice(0, 10), `${file} at byte ${offset.toLocaleString("en")}`];
  return h("div", {}, pageLink(url, host), detail(shown(url)), detail(where.join(" · ")));
}

/** A turn of chat data: its offset is the line of the file. */
function turnOf({ source, artifact, file, offset, part }) {
  return h("div", {}, h("strong", {}, upright(source)), detail([artifact, `${file} line ${offset.toLocaleString("en")}`, part].join(" · ")));
}

function pageLink(url, host) {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (!["http:", "https:"].includes(parsed?.protocol)) return h("strong", { class: "text" }, shown(host || "a page"));
  // noreferrer: the page does not learn where its reader came from, and cannot reach back.
  return h("a", { href: parsed.href, target: "_blank", rel: "noreferrer noopener", title: "Opens the page as it is now, which may differ from what was crawled" }, parsed.hostname);
}

/** What stands around a span, on one line. */
function context(place, text) {
  const [line, span] = [oneLine(place.context).trim(), oneLine(text)];
  const at = span ? line.indexOf(span) : -1;
  const parts = at < 0 ? [upright(line)] : [upright(line.slice(0, at)), h("mark", {}, upright(span)), upright(line.slice(at + span.length))];
  return h("p", { class: "text why-context" }, parts);
}
