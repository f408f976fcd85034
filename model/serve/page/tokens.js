/* The room Tokens: a text or a conversation as tokens, what of it is learned in training, and two vocabularies next to each other. */

import { isAborted, orNull } from "./api.js";
import { conversationEditor, EXAMPLE, readConversation } from "./conversation_editor.js";
import { field, fill, h, prose, select } from "./dom.js";
import { keepText } from "./kept.js";
import { tokenCard } from "./token_card.js";

const TEXT = "Crawling the web, one page at a time: naïve café, 東京, 12,345 🙂";
const PAUSE_MS = 250; // after the last key, before the server is asked
const NONE = "none";
const BYTES = "bytes"; // a token is a byte: what every vocabulary begins with, made here

/** A choice of one of several, as radio buttons. */
function choice(legend, options, onchange) {
  const name = `choice-${legend.replaceAll(" ", "-")}`;
  const radios = options.map(([value, text], place) =>
    h("label", { class: "check" }, h("input", { type: "radio", name, value, checked: place === 0, onchange: () => onchange(value) }), text),
  );
  return h("fieldset", { class: "row" }, h("legend", { class: "visually-hidden" }, legend), radios);
}

/** A text as the server's answer would be for a vocabulary of the 256 bytes. */
function byteTokens(text) {
  const bytes = [...new TextEncoder().encode(text)];
  const strings = bytes.map((byte) => (byte < 0x80 ? String.fromCharCode(byte) : "\ufffd"));
  return { count: bytes.length, num_bytes: bytes.length, tokens: bytes, token_strs: strings, bytes: bytes.map((byte) => [byte]) };
}

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
    keepText("tokens-text", this.text);
    this.#build(root);
  }

  #build(root) {
    this.textField = field("Text", this.text);
    this.editor.element.hidden = true;
    const kinds = choice("What to tokenize", [["text", "A text"], ["conversation", "A conversation"]], (kind) => this.#switch(kind));
    this.colours = choice("Colours", [["hue", "Each token"], ["mask", "What is learned"]], (colour) => {
      this.colour = colour;
      this.#ask();
    });
    this.secondField = field("Compare with", this.second, "Others are here after `crawl2chat serve --vocabulary FILE`, such as GPT-2's.");
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
      const messages = readConversation(parameters.get("messages"));
      if (!messages) return this.api.onError("The link to this room has no conversation that can be read.");
      this.editor.replace(messages);
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

  async load() {
    if (this.models) return;
    const [models, others] = await Promise.all([orNull(this.api.models()), orNull(this.api.get("/vocabularies"))]);
    if (!models || !others) return;
    this.models = models;
    const own = models.map((model) => [`model:${model.id}`, `${model.id} (${model.vocab_size.toLocaleString("en")} tokens)`]);
    const named = others.data
      .filter(({ name }) => !name.startsWith("own"))
      .map(({ name, vocab_size }) => [`vocabulary:${name}`, `${name} (${vocab_size.toLocaleString("en")} tokens)`]);
    const options = (pairs) => pairs.map(([value, text]) => h("option", { value }, text));
    fill(this.first, options([...own, ...named]));
    fill(this.second, options([[NONE, "nothing"], [BYTES, "bytes (256 tokens)"], ...named, ...own]));
    this.second.value = named[0]?.[0] ?? BYTES;
    this.#ask();
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(), PAUSE_MS);
  }

  async #ask() {
    if (!this.models) return; // load() asks when they are here
    this.controller?.abort();
    const { signal } = (this.controller = new AbortController());
    const chosen = this.kind === "text" && this.second.value !== NONE ? [this.first, this.second] : [this.first];
    if (!this.results.firstChild) fill(this.results, h("p", { class: "muted" }, "Reading the vocabulary …")); // GPT-2's takes a second
    try {
      const answers = await Promise.all(chosen.map((one) => this.#tokenize(one.value, signal)));
      fill(this.results, answers.map((answer, place) => tokenCard(answer, chosen[place].selectedOptions[0].text, this.colour === "mask")));
      this.comparison.textContent = compare(answers, chosen.map((one) => one.value.slice(one.value.indexOf(":") + 1)));
    } catch (error) {
      if (isAborted(error)) return;
      this.comparison.textContent = "";
      fill(this.results, h("p", { class: "failed" }, prose(error.message)));
    }
  }

  async #tokenize(vocabulary, signal) {
    if (vocabulary === BYTES) return byteTokens(this.text.value);
    const [kind, name] = [vocabulary.slice(0, vocabulary.indexOf(":")), vocabulary.slice(vocabulary.indexOf(":") + 1)];
    const which = kind === "model" ? { model: name } : { model: this.models[0].id, vocabulary: name };
    const what = this.kind === "text" ? { prompt: this.text.value, add_special_tokens: false } : { messages: this.editor.messages() };
    return this.api.post("/tokenize", { ...which, ...what }, { signal, quiet: true });
  }
}

/** Which vocabulary needs fewer tokens for the same text. */
function compare(answers, names) {
  if (answers.length < 2 || !answers[0].count || !answers[1].count) return "";
  const [fewer, more] = answers[0].count <= answers[1].count ? [0, 1] : [1, 0];
  if (answers[0].count === answers[1].count) return "Both need the same number of tokens.";
  const share = 100 * (1 - answers[fewer].count / answers[more].count);
  return `${names[fewer]} needs ${share.toFixed(0)}% fewer tokens than ${names[more]}.`;
}

let mounted = null;

export const room = {
  id: "tokens",
  title: "Tokens",
  mount(root, api) {
    mounted = new TokensRoom(root, api);
  },
  show: (parameters) => mounted.open(parameters),
  load: () => mounted.load(),
};
