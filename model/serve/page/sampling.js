/* The settings of generation, for the rooms Chat and Playground. `values()` gives the fields of a request; what is off is left out. */

import { field, foldable, h, select } from "./dom.js";

const MAX_SEED = 2 ** 31;

/** A number field that may be empty. */
function number(attributes) {
  return h("input", { type: "number", inputMode: "decimal", ...attributes });
}

/** A slider with its value next to the label. `off`: the value at which it does nothing. */
function slider(label, { min, max, step, value, off, hint }) {
  const input = h("input", { type: "range", min, max, step, value, class: "slider" });
  const shown = h("output", { class: "slider-value" });
  const show = () => {
    shown.textContent = Number(input.value) === off ? "off" : input.value;
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  input.addEventListener("input", show);
  show();
  const made = field(label, input, hint);
  made.classList.add("with-value");
  made.append(shown);
  return { element: made, input, value: () => (Number(input.value) === off ? undefined : Number(input.value)) };
}

/** What a number field holds, within its bounds; undefined where it is empty. */
function read(input) {
  if (input.value === "") return undefined;
  const value = Math.min(Math.max(Number(input.value), Number(input.min)), Number(input.max));
  input.value = value;
  return value;
}

/** The panel. `beams`: beam search is offered; `length`: tokens at first; `stop`: a field for stop texts, one a line. */
export function samplingPanel({ length = 128, temperature = 0.8, beams = false, stop = false } = {}) {
  const methods = [["sample", "Sample"], ["greedy", "Greedy: the likeliest token"], ...(beams ? [["beam", "Beam search"]] : [])];
  const method = select(methods, "sample");
  const warmth = slider("Temperature", { min: 0.05, max: 2, step: 0.05, value: temperature, hint: "Below 1: safer. Above 1: wilder." });
  const topK = number({ min: 1, max: 100000, step: 1, placeholder: "off" });
  const topP = slider("Top-p", { min: 0.05, max: 1, step: 0.05, value: 1, off: 1, hint: "The likeliest tokens that add up to p." });
  const minP = slider("Min-p", { min: 0, max: 1, step: 0.01, value: 0, off: 0, hint: "Tokens of at least p times the best." });
  const seed = number({ min: 0, max: MAX_SEED, step: 1, placeholder: "random" });
  const numBeams = number({ min: 2, max: 16, step: 1, value: 4 });
  const maxTokens = number({ min: 1, max: 4096, step: 1, value: length });
  const stops = h("textarea", { rows: 2, spellcheck: false });

  const sampled = h("div", { class: "stack tight" }, [
    warmth.element,
    topP.element,
    minP.element,
    field("Top-k", topK, "The k likeliest tokens."),
    field("Seed", seed, "The same seed gives the same text."),
  ]);
  const beamField = field("Beams", numBeams);
  const follow = () => {
    sampled.hidden = method.value !== "sample";
    beamField.hidden = method.value !== "beam";
  };
  method.addEventListener("change", follow);
  follow();

  const parts = [field("Method", method), sampled, beamField, field("Longest reply, in tokens", maxTokens)];
  if (stop) parts.push(field("Stop at", stops, "One text a line; the reply ends before it."));
  const element = foldable("Settings", ...parts);

  function values() {
    const common = { max_tokens: read(maxTokens) ?? length };
    const texts = stops.value.split("\n").filter((line) => line !== "").map((line) => line.replaceAll("\\n", "\n"));
    if (texts.length) common.stop = texts;
    if (method.value === "greedy") return { ...common, temperature: 0 };
    if (method.value === "beam") return { ...common, use_beam_search: true, best_of: read(numBeams) ?? 4 };
    return {
      ...common,
      temperature: warmth.value(),
      top_k: read(topK),
      top_p: topP.value(),
      min_p: minP.value(),
      seed: read(seed) ?? Math.floor(Math.random() * MAX_SEED),
    };
  }

  const setStop = (texts) => (stops.value = texts.map((text) => text.replaceAll("\n", "\\n")).join("\n"));
  return { element, values, setStop };
}
