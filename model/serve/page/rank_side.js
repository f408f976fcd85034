/* The side of the room Rank: guidelines, progress, agreement, how completions are sampled, and prompts to add. */

import { orNull } from "./api.js";
import { button, count, field, fill, h, percent } from "./dom.js";
import { nickname } from "./person.js";

const STRONG = 0.8; // Krippendorff's limit for firm conclusions, and below it the one for tentative ones
const TENTATIVE = 0.667;

/** Paragraphs, headings and lists of a Markdown text; emphasis is shown as bold. Everything else stays text. */
export function markdown(text) {
  const bold = (line) => line.split("**").map((part, number) => (number % 2 ? h("strong", {}, part) : part));
  return text.split(/\n\n+/).flatMap((block) => {
    const lines = block.split("\n");
    if (block.startsWith("#")) return [h("h3", {}, block.replace(/^#+\s*/, ""))];
    if (!/^(\d+\.|-)\s/.test(block)) return [h("p", {}, bold(lines.join(" ")))];
    const items = block.replaceAll(/\n(?!\d+\.\s|-\s)\s*/g, " ").split("\n").map((line) => line.replace(/^(\d+\.|-)\s+/, ""));
    return [h(/^\d/.test(block) ? "ol" : "ul", {}, items.map((item) => h("li", {}, bold(item))))];
  });
}

export class RankSide {
  constructor(api, onprompts) {
    this.api = api;
    this.onprompts = onprompts;
    this.version = "";
    this.guidelines = h("div", { class: "rank-guidelines" });
    this.progress = h("div", { class: "stack tight" });
    this.count = h("input", { type: "number", min: 2, max: 9, value: 4 });
    this.temperature = h("input", { type: "number", min: 0, max: 2, step: 0.1, value: 1 });
    this.tokens = h("input", { type: "number", min: 1, max: 4096, value: 128 });
    this.models = h("div", { class: "stack tight" });
    this.prompts = h("textarea", { rows: 4, placeholder: "Who are you?" });
    this.added = h("small", { role: "status" });
    const form = h("div", { class: "stack tight" }, field("Prompts", this.prompts, "One a line."), this.added, button("Add", () => this.#addTyped()));
    this.adding = h("details", { class: "card" }, h("summary", {}, "Add prompts"), form);
    this.element = h("aside", { class: "stack", ariaLabel: "Guidelines and progress" }, this.#cards());
  }

  #cards() {
    const sampling = [
      this.models, field("Completions of a prompt", this.count), field("Temperature", this.temperature), field("Tokens at most", this.tokens),
      h("small", {}, "For prompts that nobody has opened yet. The settings are kept with every completion."),
    ];
    return [
      h("div", { class: "card" }, h("h2", {}, "Progress"), this.progress),
      this.adding,
      h("details", { class: "card" }, h("summary", {}, "How completions are made"), h("div", { class: "stack tight" }, sampling)),
      h("details", { class: "card", open: true }, h("summary", {}, "Guidelines"), this.guidelines),
    ];
  }

  async #loadModels() {
    if (this.models.firstChild) return;
    const models = await this.api.models();
    const box = (model) => h("label", { class: "check" }, h("input", { type: "checkbox", value: model.id, checked: model.is_chat }), model.id);
    fill(this.models, h("span", {}, "Models"), models.map(box));
  }

  /** How the completions of a prompt are made. */
  sampling() {
    const models = [...this.models.querySelectorAll("input:checked")].map((box) => box.value);
    const within = (input) => Math.min(Math.max(Number(input.value), Number(input.min)), Number(input.max));
    return {
      models, num_completions: Math.round(within(this.count)), temperature: within(this.temperature), max_tokens: Math.round(within(this.tokens)),
    };
  }

  async #addTyped() {
    const prompts = this.prompts.value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (prompts.length && (await this.add(prompts))) this.prompts.value = "";
  }

  /** Add prompts to the queue. True where the server took them. */
  async add(prompts) {
    const answer = await orNull(this.api.post("/feedback/rank/prompts", { prompts }));
    if (answer) this.added.textContent = `${count(answer.added, "prompt")} added.`;
    if (answer && (await orNull(this.refresh()))) this.onprompts();
    return answer !== null;
  }

  /** Ask the server for guidelines, progress, which is returned, and agreement. */
  async refresh() {
    await this.#loadModels();
    const who = nickname() ? `?who=${encodeURIComponent(nickname())}` : "";
    const { guidelines, progress, agreement } = await this.api.get(`/feedback/rank${who}`);
    if (guidelines.version !== this.version) {
      this.version = guidelines.version;
      fill(this.guidelines, markdown(guidelines.text), h("small", {}, `Version ${guidelines.version}, which every ranking names.`));
    }
    if (!progress.prompts) this.adding.open = true; // the first thing to do
    const bar = h("progress", { max: Math.max(progress.prompts, 1), value: progress.mine, ariaLabel: "Ranked by you" });
    fill(
      this.progress,
      bar,
      h("div", {}, `${progress.mine} of ${progress.prompts} prompts ranked by you`),
      h("small", {}, `${count(progress.labels, "ranking")} by ${count(progress.people, "person", "people")}. ${this.#agreementText(agreement)}`),
    );
    return progress;
  }

  #agreementText({ alpha, pairs, num_prompts: shared }) {
    if (!shared) return "Agreement is known when two people have ranked the same prompt.";
    if (alpha === null) return `${shared} prompts ranked by several people, all completions alike.`;
    const verdict = alpha >= STRONG ? "strong" : alpha >= TENTATIVE ? "enough for tentative conclusions" : "too low for conclusions";
    const alike = pairs === null ? "" : `; ${percent(pairs)} of pairs ordered alike`;
    return `Krippendorff's alpha ${alpha.toFixed(2)} on ${shared} prompts ranked by several people: ${verdict}${alike}.`;
  }
}
