/* A text in one vocabulary: figures, the tokens as text, the token that is pointed at, and all as a table. */

import { button, fill, h, visible } from "./dom.js";
import { textOf, TokenRun } from "./token_run.js";

const FIRST_SHOWN = 2000; // tokens; the browser gets slow with many more elements
const NUM_HUES = 5;
const TURN_START = "<|im_start|>";

const bytesOf = (token) => token.bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** A card for an answer of /tokenize. `showsMask`: the colours are of what is learned, where the answer has a mask. */
export function tokenCard(answer, name, showsMask) {
  const hasMask = Boolean(answer.mask);
  const tokens = answer.tokens.map((id, place) => ({
    id,
    text: answer.token_strs[place],
    bytes: answer.bytes[place],
    isSpecial: answer.special?.[place],
    isLearned: answer.mask?.[place] === 1,
  }));
  const details = h("p", { class: "tokens-detail", role: "status" }, "Click on a token for its number and bytes.");
  const run = new TokenRun({
    label: `Tokens of ${name}`,
    describe: (token) => describe(token, hasMask),
    classOf: (token, place) => classOf(token, place, hasMask && showsMask),
    startsLine: (token) => token.isSpecial && token.text === TURN_START,
    onpick: (place) => {
      run.choose(place);
      details.textContent = `Token ${place + 1} of ${tokens.length}: ${describe(tokens[place], hasMask)}`;
    },
  });
  run.append(tokens.slice(0, FIRST_SHOWN));
  const text = h("div", { class: "tokens text" }, run.element);
  const legend = hasMask && showsMask && maskLegend();
  return h("article", { class: "card stack tight tokens-card", ariaLabel: name }, h("h2", {}, name), figures(answer), legend, text, more(run, tokens), details, table(tokens));
}

/** A button that shows further tokens. */
function more(run, tokens) {
  if (tokens.length <= FIRST_SHOWN) return null;
  const made = button(`Show ${FIRST_SHOWN.toLocaleString("en")} more`, () => {
    run.append(tokens.slice(run.tokens.length, run.tokens.length + FIRST_SHOWN));
    made.hidden = run.tokens.length >= tokens.length;
  });
  return made;
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
