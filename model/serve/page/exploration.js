/* One completion as a tree. A click on a token shows what else could have stood there; choosing one of those continues the text from it as a new
   branch, and the old one stays in the list of branches. */

import { isAborted } from "./api.js";
import { button, fill, h, percent, shown, visible } from "./dom.js";
import { finishText } from "./generation.js";
import { binOf, describeProbability, textOf, TokenRun, wholeText } from "./token_run.js";
import { Why } from "./why.js";

const CONTEXT_CHARACTERS = 60; // of the text before, in the name of a branch

const chanceOf = (token) => Math.exp(token.logprob);
const classOf = (token) => (token.logprob === null || token.logprob === undefined ? "given" : binOf(chanceOf(token)));

/** A text's last characters, with an ellipsis where it is cut. */
function tail(text, length = CONTEXT_CHARACTERS) {
  return text.length > length ? `…${text.slice(-length)}` : text;
}

export class Exploration {
  /** `prefix`: ids before the tokens; `context`: their text; `generate(ids, signal)`: yields {tokens, finish}; `why(text, num)`: the
      answer of /why-said; `note`: of the settings. */
  constructor({ title, prefix, context, generate, why, note = "" }) {
    this.prefix = prefix;
    this.generate = generate;
    this.nodes = []; // {parent, at, tokens, finish, name}
    this.run = new TokenRun({ label: `Tokens of ${title}`, describe: describeProbability, classOf, onpick: (place) => this.#inspect(place) });
    this.status = h("p", { class: "status", role: "status" });
    this.stopButton = button("Stop", () => this.stop(), { kind: "small", label: `Stop ${title}` });
    this.alternatives = h("div", { class: "alternatives", role: "group", ariaLabel: `Alternatives in ${title}`, hidden: true });
    this.alternatives.addEventListener("keydown", (event) => event.key === "Escape" && this.#close());
    this.branches = h("nav", { class: "branches", ariaLabel: `Branches of ${title}`, hidden: true });
    this.why = new Why({ label: `Why was this said in ${title}?`, ask: (num) => why(wholeText(this.node.tokens), num) });
    const header = h("div", { class: "row" }, h("h3", {}, title), note && h("small", {}, note), h("span", { class: "push" }), this.why.button, this.stopButton);
    const given = context && h("span", { class: "given" }, shown(tail(context)));
    const text = h("div", { class: "tokens text exploration-text" }, given, this.run.element);
    this.element = h("article", { class: "card exploration", ariaLabel: title }, header, text, this.alternatives, this.why.element, this.status, this.branches);
    this.stopButton.hidden = true;
  }

  /** Generate the first text. */
  start() {
    return this.#grow(this.#add({ parent: null, at: 0, tokens: [], name: "first text" }));
  }

  /** Show tokens that exist already. */
  show(tokens) {
    const node = this.#add({ parent: null, at: 0, tokens, name: "your text" });
    this.#open(node);
  }

  stop() {
    this.controller?.abort();
  }

  #add(node) {
    this.nodes.push(node);
    return node;
  }

  async #grow(node) {
    this.stop();
    const controller = (this.controller = new AbortController());
    this.#open(node);
    this.stopButton.hidden = false;
    this.status.textContent = "writing…";
    try {
      const ids = [...this.prefix, ...node.tokens.map((token) => token.id)];
      for await (const { tokens, finish } of this.generate(ids, controller.signal)) {
        node.tokens.push(...tokens);
        node.finish = finish ?? node.finish;
        if (this.node === node) this.run.append(tokens); // the status waits for the end: it is read aloud
      }
    } catch (error) {
      if (!isAborted(error) && error.name !== "ApiError") throw error;
      node.hasFailed = !isAborted(error);
      node.finish = isAborted(error) ? "stopped" : error.message;
    }
    if (this.controller === controller) this.stopButton.hidden = true;
    if (this.node === node) this.#report();
  }

  #open(node) {
    this.node = node;
    this.run.replace(node.tokens);
    this.#close({ focus: false });
    this.why.close(); // it was of another text
    this.#report();
    this.#listBranches();
  }

  #report() {
    this.why.button.hidden = !wholeText(this.node.tokens).trim();
    const scored = this.node.tokens.filter((token) => token.logprob !== null && token.logprob !== undefined);
    const nats = -scored.reduce((sum, token) => sum + token.logprob, 0) / scored.length;
    const parts = [`${this.node.tokens.length} tokens`];
    if (scored.length) parts.push(`${nats.toFixed(2)} nats per token`);
    if (this.node.finish) parts.push(finishText(this.node.finish));
    this.status.textContent = parts.join(" · ");
    this.status.classList.toggle("failed", this.node.hasFailed === true);
  }

  #inspect(place) {
    const token = this.node.tokens[place];
    this.run.choose(place);
    this.place = place;
    this.alternatives.hidden = false;
    if (!token.top.length) {
      fill(this.alternatives, h("p", {}, "The first token is given: the model predicts what follows it."));
      return;
    }
    const rest = 1 - token.top.reduce((sum, one) => sum + chanceOf(one), 0);
    const rows = token.top.map((one) => this.#alternative(one, token, place));
    if (!token.top.some((one) => one.id === token.id)) rows.push(this.#alternative(token, token, place));
    fill(
      this.alternatives,
      h("div", { class: "row" }, h("h4", {}, describeProbability(token)), h("span", { class: "push" }), button("Close", () => this.#close(), { kind: "quiet small" })),
      h("p", { class: "muted" }, "The likeliest tokens at this place. Choose one to continue from it; this text stays under Branches."),
      h("ol", {}, rows),
      rest > 0.0005 && h("p", { class: "muted" }, `All other tokens together: ${percent(rest)}`),
    );
    this.alternatives.querySelector("ol button")?.focus({ preventScroll: true });
    this.alternatives.scrollIntoView({ block: "nearest" });
  }

  #alternative(one, chosen, place) {
    const chance = chanceOf(one);
    const bar = h("span", { class: `bar ${binOf(chance)}`, ariaHidden: "true" });
    bar.style.setProperty("--share", chance); // through the object model, which the Content-Security-Policy allows
    const isChosen = one.id === chosen.id;
    const parts = [bar, h("span", { class: "mono text" }, visible(textOf(one))), isChosen && h("small", {}, "in the text"), h("span", { class: "chance" }, percent(chance))];
    // The second click of a double click on a token lands here, where the panel has come under the pointer, and chooses nothing.
    const name = `“${visible(textOf(one))}”, ${percent(chance)}${isChosen ? ", in the text" : ""}`;
    return h("li", {}, h("button", { type: "button", ariaLabel: name, onclick: (event) => event.detail < 2 && this.#branch(place, one) }, parts));
  }

  #branch(place, alternative) {
    const kept = this.node.tokens.slice(0, place);
    const before = kept.map(textOf).join("");
    const node = { parent: this.node, at: place, name: `“${visible(textOf(alternative))}” after “${shown(tail(before, 24)).replaceAll("⏎\n", "⏎") || "the prompt"}”` };
    node.tokens = [...kept, { ...alternative, top: this.node.tokens[place].top }];
    this.#grow(this.#add(node)).then(() => {});
    this.run.focus(place);
  }

  #close({ focus = true } = {}) {
    const wasOpen = !this.alternatives.hidden;
    this.alternatives.hidden = true;
    this.run.choose(-1);
    if (wasOpen && focus) this.run.focus(this.place);
  }

  #listBranches() {
    this.branches.hidden = this.nodes.length < 2;
    const listOf = (parent) => {
      const children = this.nodes.filter((node) => node.parent === parent);
      return children.length ? h("ul", {}, children.map((node) => h("li", {}, this.#branchButton(node), listOf(node)))) : null;
    };
    fill(this.branches, h("h4", {}, "Branches"), listOf(null));
  }

  #branchButton(node) {
    const made = button(node.name, () => this.#show(node), { kind: "small quiet" });
    if (node === this.node) made.setAttribute("aria-current", "true");
    return made;
  }

  #show(node) {
    this.#open(node);
    this.branches.querySelector("[aria-current]")?.focus();
  }
}
