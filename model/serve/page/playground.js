/* The room Playground: a model continues a text; every token shows its probability. */

import { orNull } from "./api.js";
import { button, field, fill, h, select } from "./dom.js";
import { Exploration } from "./exploration.js";
import { completionOf, idsOf, scoredText } from "./generation.js";
import { keepText } from "./kept.js";
import { samplingPanel } from "./sampling.js";
import { TEMPLATES } from "./templates.js";
import { probabilityLegend } from "./token_run.js";

const SIDE_BY_SIDE = [1, 2, 3, 4, 6, 8];

class Playground {
  constructor(root, api) {
    this.api = api;
    this.explorations = [];
    this.panel = samplingPanel({ length: 64, temperature: 1, beams: true, stop: true });
    this.model = select([]);
    this.template = select(TEMPLATES.map(({ name }, place) => [place, name]), 0);
    this.template.addEventListener("change", () => this.#useTemplate());
    this.prompt = h("textarea", { rows: 3, spellcheck: false, class: "mono playground-prompt" });
    this.prompt.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.complete());
    this.count = select(SIDE_BY_SIDE.map((number) => [number, number === 1 ? "1" : `${number} side by side`]), 1);
    this.results = h("div", { class: "explorations", role: "region", ariaLabel: "Completions" });
    this.stopAll = button("Stop all", () => this.stop());
    this.stopAll.hidden = true;
    this.#build(root);
    this.#useTemplate();
    keepText("playground-prompt", this.prompt);
  }

  #build(root) {
    const choices = h("div", { class: "columns playground-choices" }, field("Model", this.model), field("Template", this.template), field("Completions", this.count));
    const buttons = h(
      "div",
      { class: "row" },
      button("Complete", () => this.complete(), { kind: "primary" }),
      button("Score this text", () => this.score()),
      this.stopAll,
      h("small", { class: "push" }, "Ctrl + Enter completes"),
    );
    const work = h("div", { class: "stack" }, h("div", { class: "card stack" }, choices, field("Prompt", this.prompt), buttons), this.results);
    root.append(
      h("h1", {}, "Playground"),
      h("p", { class: "muted" }, "A language model continues a text, one token after the other. Click on a token to see what else it considered."),
      h("div", { class: "with-side" }, work, this.panel.element),
    );
    fill(this.results, h("p", { class: "muted empty" }, "Completions appear here."));
  }

  async load() {
    if (this.model.options.length) return;
    const models = (await orNull(this.api.models())) ?? [];
    fill(this.model, models.map((model) => h("option", { value: model.id }, model.id)));
    const base = models.find((model) => model.kind === "base");
    if (base) this.model.value = base.id;
  }

  #useTemplate() {
    const { prompt, stop } = TEMPLATES[this.template.value];
    this.prompt.value = prompt;
    this.panel.setStop(stop);
  }

  stop() {
    this.controller?.abort();
    for (const one of this.explorations) one.stop();
  }

  /** Clear the results, and return what the next ones need. */
  #begin() {
    this.stop();
    this.controller = new AbortController();
    this.explorations = [];
    this.stopAll.hidden = true;
    this.results.replaceChildren();
    return { model: this.model.value, text: this.prompt.value, signal: this.controller.signal };
  }

  #add(exploration) {
    this.explorations.push(exploration);
    const legend = this.results.firstChild ?? probabilityLegend();
    this.results.append(...(this.results.firstChild ? [] : [legend]), exploration.element);
    this.results.classList.toggle("several", this.explorations.length > 1);
    return exploration;
  }

  async complete() {
    await this.load(); // where the server did not answer before
    const { model, text, signal } = this.#begin();
    const prefix = model && (await orNull(idsOf(this.api, model, text, signal)));
    if (!prefix) return;
    const sampling = this.panel.values();
    const number = sampling.seed === undefined ? 1 : Number(this.count.value); // greedy and beam search give the same each time
    const all = Array.from({ length: number }, (_, place) => {
      const own = number > 1 || sampling.seed !== undefined ? { ...sampling, seed: sampling.seed + place } : sampling;
      const title = number > 1 ? `Completion ${place + 1}` : "Completion";
      return this.#add(this.#exploration(title, model, prefix, text, own));
    });
    const shown = this.explorations; // until the next ones replace them
    this.stopAll.hidden = all.length === 1; // which has a button for it
    await Promise.all(all.map((one) => one.start()));
    if (this.explorations === shown) this.stopAll.hidden = true;
  }

  #exploration(title, model, prefix, context, sampling) {
    return new Exploration({
      title,
      prefix,
      context,
      note: sampling.seed === undefined ? "" : `seed ${sampling.seed}`,
      why: (reply, num) => this.api.post("/why-said", { model, reply, num }, { quiet: true }),
      generate: (ids, signal) => completionOf(this.api, model, ids, sampling, signal),
    });
  }

  async score() {
    await this.load();
    const { model, text, signal } = this.#begin();
    const tokens = model && (await orNull(scoredText(this.api, model, text, signal)));
    if (!tokens) return;
    this.#add(this.#exploration("Your text", model, [], "", this.panel.values())).show(tokens);
  }
}

export const room = {
  id: "playground",
  title: "Playground",
  mount(root, api) {
    this.made = new Playground(root, api);
  },
  load() {
    return this.made.load();
  },
};
