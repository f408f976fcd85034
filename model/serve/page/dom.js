/* Elements from plain values. Text becomes text nodes and nothing here parses HTML, so that what a model writes stays text. */

/** An element. `on…` are event handlers, aria… and other known properties are set as properties, the rest as attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replace the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A sentence whose `commands` stand in the type of code. */
export const prose = (text) => text.split("`").map((part, number) => (number % 2 ? h("code", {}, part) : part));

let counter = 0;

/** A label with its control, tied by id, and an optional hint that screen readers read with it. */
export function field(label, control, hint = "") {
  control.id ||= `field-${++counter}`;
  const lines = [h("label", { htmlFor: control.id }, label), control];
  if (hint) {
    lines.push(h("small", { id: `${control.id}-hint` }, prose(hint)));
    control.setAttribute("aria-describedby", `${control.id}-hint`);
  }
  return h("div", { class: "field" }, lines);
}

/** A card with a title that folds its content. It is unfolded at first where the screen has room next to the work. */
export function foldable(title, ...children) {
  const open = matchMedia("(min-width: 60rem)").matches;
  return h("details", { class: "card foldable", open }, h("summary", {}, h("h2", {}, title)), h("div", { class: "stack tight" }, ...children));
}

/** A button. `kind`: primary, quiet or "". */
export function button(text, onclick, { kind = "", label } = {}) {
  return h("button", { type: "button", class: kind, onclick, ariaLabel: label }, text);
}

/** A select with options given as values or as [value, text]. */
export function select(options, value) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  const made = h("select", {}, pairs.map(([key, text]) => h("option", { value: key }, text)));
  if (value !== undefined) made.value = value;
  return made;
}

// Control characters, and those without a shape that change the direction or the joining of the text around them.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

// Of these, those that would turn the letters after them around: what a model writes could read as something else.
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;
const escaped = (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`;

/** Text to read, with characters that change its direction written as their code. Scripts that run from right to left need none. */
export const upright = (text) => text.replace(TURNING, escaped);

/** Text as part of a longer text: line breaks are marked, and characters that are not seen are written as their code. */
export function shown(text) {
  return text
    .replaceAll("\n", "⏎\n")
    .replaceAll("\t", "⇥\t")
    .replace(HIDDEN, escaped);
}

/** Text that stands alone, in quotes or a table: its spaces are seen too. */
export const visible = (text) => shown(text).replaceAll("⏎\n", "⏎").replaceAll("⇥\t", "⇥").replaceAll(" ", "␣");

/** A number with its noun: 1 vote, 2 votes. */
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** A probability for people: 42.0%, 0.03%, < 0.01%. */
export function percent(probability) {
  if (probability >= 0.9995) return "100%";
  if (probability >= 0.001) return `${(100 * probability).toFixed(1)}%`;
  return probability >= 0.0001 ? `${(100 * probability).toFixed(2)}%` : "< 0.01%";
}
