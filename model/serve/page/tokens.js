/* The room Tokens: a text or a conversation as tokens, what of it is learned in training, and two vocabularies next to each other. */

import { isAborted } from "./api.js";
import { conversationEditor, EXAMPLE } from "./conversation_editor.js";
import { button, field, fill, h, select, visible } from "./dom.js";
import { textOf, TokenRun } from "./token_run.js";

const TEXT = "Crawling the web, one page at a time: naïve café, 東京, 12,345 🙂";
const PAUSE_MS = 250; // after the last key, before the server is asked
const FIRST_SHOWN = 2000; // tokens; the browser gets slow with many more elements
const NUM_HUES = 5;
const NONE = "none";
const TURN_START = "<|im_start|>";

/** A choice of one of several, as radio buttons. */
function choice(legend, options, onchange) {
  const name = `choice-${legend.replaceAll(" ", "-")}`;
  const radios = options.map(([value, text], place) =>
    h("label", { class: "check" }, h("input", { type: "radio", name, value, checked: place === 0, onchange: () => onchange(value) }), text),
  );
  return h("fieldset", { class: "row" }, h("legend", { class: "visually-hidden" }, legend), radios);
}

const bytesOf = (token) => token.bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

class TokensRoom {
  constructor(root, api) {
    this.api = api;
    this.kind = "text";
    this.colour = "hue";
    this.text = h("textarea", { rows: 3, spellcheck: false, value: TEXT, oninput: () => this.#later() });
    this.editor = conversationEditor(structuredClone(EXAMPLE), () => this.#later());
    this.first = select([]);
    this.second = select([]);
    for (const one of [this.first, this.second]) one.addEventListener("change", () => this.#ask());
    this.results = h("div", { class: "columns tokens-results" });
    this.comparison = h("p", { role: "status", class: "tokens-comparison" });
    this.#build(root);
    this.#loadVocabularies().then(() => this.#ask());
  }

  #build(root) {
    this.textField = field("Text", this.text);
    this.editor.element.hidden = true;
    const kinds = choice("What to tokenize", [["text", "A text"], ["conversation", "A conversation"]], (kind) => this.#switch(kind));
    this.colours = choice("Colours", [["hue", "Each token"], ["mask", "What is learned"]], (colour) => {
      this.colour = colour;
      this.#ask();
    });
    this.secondField = field("Compare with", this.second);
    const choices = h("div", { class: "columns" }, field("Vocabulary", this.first), this.secondField);
    root.append(
      h("h1", {}, "Tokens"),
      h("p", { class: "muted" }, "A model reads numbers, not letters. This is how a text becomes tokens, and which of them it is trained to write."),
      h("div", { class: "stack" }, h("div", { class: "card stack" }, kinds, this.textField, this.editor.element, choices), h("div", { class: "row" }, this.comparison, h("span", { class: "push" }), this.colours), this.results),
    );
    this.colours.hidden = true;
  }

  /** Open with what a link names: a text, or a conversation as JSON. */
  open(parameters) {
    if (parameters.has("text")) {
      this.text.value = parameters.get("text");
      this.#choose("text");
    } else if (parameters.has("messages")) {
      this.editor.replace(JSON.parse(parameters.get("messages")));
      this.#choose("conversation");
    }
  }

  #choose(kind) {
    document.querySelector(`.room-tokens input[value=${kind}]`).checked = true;
    this.#switch(kind);
  }

  #switch(kind) {
    this.kind = kind;
    const isText = kind === "text";
    this.textField.hidden = this.secondField.hidden = !isText; // other vocabularies have no turns
    this.editor.element.hidden = this.colours.hidden = isText;
    this.#ask();
  }

  async #loadVocabularies() {
    const [models, others] = await Promise.all([this.api.models(), this.api.get("/vocabularies")]);
    this.models = models;
    const own = models.map((model) => [`model:${model.id}`, `${model.id} (${model.vocab_size.toLocaleString("en")} tokens)`]);
    const named = others.data
      .filter(({ name }) => !name.startsWith("own"))
      .map(({ name, vocab_size }) => [`vocabulary:${name}`, `${name} (${vocab_size.toLocaleString("en")} tokens)`]);
    const options = (pairs) => pairs.map(([value, text]) => h("option", { value }, text));
    fill(this.first, options([...own, ...named]));
    fill(this.second, options([[NONE, "nothing"], ...own, ...named]));
    this.second.value = named[0]?.[0] ?? NONE;
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(), PAUSE_MS);
  }

  async #ask() {
    if (!this.models) return;
    this.controller?.abort();
    const { signal } = (this.controller = new AbortController());
    const chosen = this.kind === "text" && this.second.value !== NONE ? [this.first, this.second] : [this.first];
    try {
      const answers = await Promise.all(chosen.map((one) => this.#tokenize(one.value, signal)));
      fill(this.results, answers.map((answer, place) => this.#card(answer, chosen[place].selectedOptions[0].text)));
      this.comparison.textContent = compare(answers, chosen.map((one) => one.value.slice(one.value.indexOf(":") + 1)));
    } catch (error) {
      if (isAborted(error)) return;
      fill(this.results, h("p", { class: "muted" }, error.message));
    }
  }

  #tokenize(vocabulary, signal) {
    const [kind, name] = [vocabulary.slice(0, vocabulary.indexOf(":")), vocabulary.slice(vocabulary.indexOf(":") + 1)];
    const which = kind === "model" ? { model: name } : { model: this.models[0].id, vocabulary: name };
    const what = this.kind === "text" ? { prompt: this.text.value, add_special_tokens: false } : { messages: this.editor.messages() };
    return this.api.post("/tokenize", { ...which, ...what }, { signal, quiet: true });
  }

  #card(answer, name) {
    const tokens = answer.tokens.map((id, place) => ({
      id,
      text: answer.token_strs[place],
      bytes: answer.bytes[place],
      isSpecial: answer.special?.[place],
      isLearned: answer.mask?.[place] === 1,
    }));
    const showsMask = this.kind === "conversation" && this.colour === "mask";
    const run = new TokenRun({
      label: `Tokens of ${name}`,
      describe: (token) => describe(token, Boolean(answer.mask)),
      classOf: (token, place) => classOf(token, place, showsMask),
      startsLine: (token) => token.isSpecial && token.text === TURN_START,
      onpick: (place) => inspect(place),
    });
    run.append(tokens.slice(0, FIRST_SHOWN));
    const details = h("p", { class: "tokens-detail", role: "status" }, "Click on a token for its number and bytes.");
    const inspect = (place) => {
      run.choose(place);
      details.textContent = `Token ${place + 1} of ${tokens.length}: ${describe(tokens[place], Boolean(answer.mask))}`;
    };
    const card = h("article", { class: "card stack tight tokens-card", ariaLabel: name }, h("h2", {}, name), figures(answer), showsMask && maskLegend(), h("div", { class: "tokens text" }, run.element), this.#more(run, tokens), details, table(tokens));
    return card;
  }

  #more(run, tokens) {
    if (tokens.length <= FIRST_SHOWN) return null;
    const made = button(`Show ${FIRST_SHOWN.toLocaleString("en")} more`, () => {
      run.append(tokens.slice(run.tokens.length, run.tokens.length + FIRST_SHOWN));
      made.hidden = run.tokens.length >= tokens.length;
    });
    return made;
  }
}

function classOf(token, place, showsMask) {
  const classes = [`hue${place % NUM_HUES}`];
  if (showsMask) classes[0] = token.isLearned ? "learned" : "context-token";
  if (token.isSpecial) classes.push("special");
  return classes.join(" ");
}

function describe(token, hasMask) {
  const parts = [`“${visible(textOf(token))}”`, `id ${token.id}`, token.isSpecial ? "special" : `bytes ${bytesOf(token)}`];
  if (hasMask) parts.push(token.isLearned ? "learned" : "context only");
  return parts.join(", ");
}

/** Counts and bytes per token. */
function figures(answer) {
  const numText = answer.tokens.length - (answer.special?.filter(Boolean).length ?? 0);
  const list = [[answer.count.toLocaleString("en"), "tokens"], [answer.num_bytes.toLocaleString("en"), "bytes"]];
  if (numText) list.push([(answer.num_bytes / numText).toFixed(2), "bytes per token"]);
  if (answer.mask) list.push([answer.mask.filter(Boolean).length.toLocaleString("en"), "learned"]);
  return h("dl", { class: "figures" }, list.map(([value, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function maskLegend() {
  const items = [["learned", "learned: the model is trained to write it"], ["context-token", "context: it only reads it"]];
  return h("ul", { class: "legend", ariaLabel: "Colours: what is learned" }, items.map(([kind, text]) => h("li", {}, h("span", { class: `token ${kind}`, ariaHidden: "true" }, "ab"), text)));
}

/** Which vocabulary needs fewer tokens for the same text. */
function compare(answers, names) {
  if (answers.length < 2 || !answers[0].count || !answers[1].count) return "";
  const [fewer, more] = answers[0].count <= answers[1].count ? [0, 1] : [1, 0];
  if (answers[0].count === answers[1].count) return "Both need the same number of tokens.";
  const share = 100 * (1 - answers[fewer].count / answers[more].count);
  return `${names[fewer]} needs ${share.toFixed(0)}% fewer tokens than ${names[more]}.`;
}

/** The same as a table, made when it is opened. */
function table(tokens) {
  const place = h("div", { class: "scroll" });
  const draw = () => {
    const rows = tokens.slice(0, FIRST_SHOWN).map((token, row) =>
      h("tr", {}, h("td", { class: "number" }, String(row + 1)), h("td", { class: "number" }, String(token.id)), h("td", { class: "mono" }, visible(textOf(token))), h("td", { class: "mono" }, token.isSpecial ? "" : bytesOf(token))),
    );
    const heads = [["Place", "number"], ["Id", "number"], ["Text", ""], ["Bytes", ""]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text));
    fill(place, h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)));
  };
  return h("details", { ontoggle: (event) => event.target.open && draw() }, h("summary", {}, "As a table"), place);
}

let mounted = null;

export const room = {
  id: "tokens",
  title: "Tokens",
  mount(root, api) {
    mounted = new TokensRoom(root, api);
  },
  show: (parameters) => mounted.open(parameters),
};
