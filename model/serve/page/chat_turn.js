/* One exchange: what the person said, which can be edited, and the reply of each model, with the tools that it called. */

import { button, fill, h, prose, upright } from "./dom.js";
import { finishText } from "./generation.js";
import { binOf, describeProbability, TokenRun } from "./token_run.js";
import { Why } from "./why.js";

/** One reply in the making. `messages`: its turns for the next request, tool calls and results included. */
class Reply {
  constructor(model, { regenerate, conversation, why }) {
    this.text = "";
    this.messages = null;
    this.events = []; // that made it
    this.body = h("div", { class: "chat-body" });
    this.note = h("small", {}, "thinking…");
    const tokens = h("a", { class: "button-link", href: "#tokens" }, "Tokens");
    tokens.addEventListener("click", () => (tokens.href = `#tokens?${new URLSearchParams({ messages: JSON.stringify(conversation(model)) })}`));
    const copy = button("Copy", () => navigator.clipboard?.writeText(this.text), { kind: "quiet small", label: `Copy the reply of ${model.id}` });
    const again = button("Regenerate", () => regenerate(model), { kind: "quiet small", label: `Regenerate the reply of ${model.id}` });
    this.why = new Why({ label: `Why was this said by ${model.id}?`, ask: (num) => why(model, this.text, num) });
    this.actions = h("div", { class: "row chat-actions", hidden: true }, again, copy, tokens, this.why.button);
    const header = h("div", { class: "row" }, h("h3", {}, model.id), this.note);
    this.element = h("article", { class: "card chat-reply", ariaLabel: `Reply of ${model.id}` }, header, this.body, this.actions, this.why.element);
  }

  /** An event of the stream; `failure`: why it broke off, and whether that is an error. */
  take({ tokens, ...event }) {
    const { text, step, notice, finish, messages, failure } = event;
    this.events.push(event);
    if (failure) this.#fail(failure);
    if (notice) this.body.append(h("p", { class: "muted" }, notice));
    if (text || tokens?.length) this.#write(text ?? "", tokens);
    if (step) this.#step(step);
    if (messages) this.#end(messages, finish);
  }

  /** The same reply after a reload, without the probabilities of its tokens: they are large. */
  replay(events) {
    for (const event of events) this.take(event);
    if (!this.messages) this.take({ failure: { reason: "stopped" } }); // the page was left in the middle
  }

  /** The reply ends here: what was written stays. */
  #fail({ reason, isError }) {
    if (isError) this.body.append(h("p", { class: "failed" }, prose(reason)));
    this.#end([{ role: "assistant", content: this.text }], isError ? "failed" : reason);
  }

  /** The text of a piece, or its tokens where they are known. */
  #write(text, tokens) {
    // Text after a tool's result is a new paragraph.
    if (!this.paragraph && this.text) this.text += "\n";
    if (!this.paragraph) this.#begin(Boolean(tokens));
    this.text += text;
    if (this.run) this.run.append(tokens ?? []);
    else this.paragraph.append(upright(text));
    this.note.textContent = "writing…";
  }

  #begin(hasTokens) {
    this.paragraph = h("p", { class: hasTokens ? "text tokens" : "text", onclick: () => this.#explain() });
    this.body.append(this.paragraph);
    if (!hasTokens) return;
    const classOf = (token) => binOf(Math.exp(token.logprob));
    this.run = new TokenRun({ label: `Tokens of ${this.element.ariaLabel}`, describe: describeProbability, classOf });
    this.paragraph.append(this.run.element);
  }

  /** A click on the text asks why, as the button does; marking a part of it does not. */
  #explain() {
    if (this.messages && getSelection().isCollapsed) this.why.open();
  }

  #step({ name, arguments: given, result, is_error: isError }) {
    this.paragraph = this.run = null;
    const summary = h("summary", {}, isError ? "Tried the tool " : "Used the tool ", h("strong", { class: "text" }, upright(name)));
    const call = h("div", {}, h("dt", {}, "asked"), h("dd", { class: "text mono" }, upright(given)));
    const answer = h("div", {}, h("dt", {}, isError ? "error" : "result"), h("dd", { class: "text mono" }, upright(result)));
    this.body.append(h("details", { class: `chat-step${isError ? " is-error" : ""}`, open: true }, summary, h("dl", {}, call, answer)));
  }

  #end(messages, finish) {
    this.messages = messages;
    this.note.textContent = finish === "stop" ? "" : finishText(finish);
    if (!this.text && !this.body.children.length) this.body.append(h("p", { class: "muted" }, "An empty reply."));
    this.actions.hidden = false;
    this.why.button.hidden = !this.text.trim();
    if (!this.text.trim()) return;
    for (const one of this.body.querySelectorAll(":scope > p.text")) {
      one.classList.add("explainable");
      one.title = "Why was this said?";
    }
  }
}

export class ChatTurn {
  /** `edit(text)`, `regenerate(model)`, `conversation(model)`, `why(model, text, num)`: what the buttons do. */
  constructor(text, actions) {
    this.text = text;
    this.actions = actions;
    this.replies = new Map(); // model id -> Reply
    this.said = h("div", { class: "chat-said" });
    this.answers = h("div", { class: "columns chat-answers" });
    this.element = h("section", { class: "chat-turn", ariaLabel: "Exchange" }, this.said, this.answers);
    this.#showText();
  }

  /** Empty replies for these models; those of others stay. */
  begin(models) {
    for (const model of models) {
      const old = this.replies.get(model.id);
      const reply = new Reply(model, this.actions);
      if (old) old.element.replaceWith(reply.element);
      else this.answers.append(reply.element);
      this.replies.set(model.id, reply);
    }
  }

  /** The messages of a model's reply, or of the first model that has answered. */
  messagesOf(id) {
    const reply = this.replies.get(id) ?? [...this.replies.values()].find((one) => one.messages);
    return reply?.messages ?? [];
  }

  /** What makes this exchange again. */
  toJSON() {
    return { text: this.text, replies: Object.fromEntries([...this.replies].map(([id, reply]) => [id, reply.events])) };
  }

  #showText() {
    const edit = button("Edit", () => this.#edit(), { kind: "quiet small", label: "Edit this message" });
    fill(this.said, h("p", { class: "text" }, upright(this.text)), edit);
  }

  #edit() {
    const box = h("textarea", { value: this.text, rows: 2, ariaLabel: "Edited message" });
    const send = button("Send again", () => box.value.trim() && this.actions.edit(box.value.trim()), { kind: "primary small" });
    const cancel = button("Cancel", () => this.#showText(), { kind: "quiet small" });
    fill(this.said, box, h("div", { class: "row end" }, cancel, send));
    box.focus();
  }
}
