/* The room Chat: one conversation, answered by one model or by several side by side.

   The person's turns are shared. Each model reads its earlier replies, and where it has none, because it was chosen later, those of the first model
   that has answered. */

import { isAborted, orNull } from "./api.js";
import { ChatTurn } from "./chat_turn.js";
import { button, field, fill, foldable, h } from "./dom.js";
import { replyOf } from "./generation.js";
import { kept, keepText } from "./kept.js";
import { samplingPanel } from "./sampling.js";
import { IDEAS } from "./templates.js";

const MAX_MODELS = 3; // side by side
const ORDER = ["policy", "assistant", "bundle", "base"]; // whom a newcomer talks to first

class Chat {
  constructor(root, api) {
    this.api = api;
    this.turns = [];
    this.models = [];
    this.panel = samplingPanel({ length: 256, temperature: 0.7 });
    this.system = h("textarea", { rows: 3, placeholder: "none" });
    this.tools = h("input", { type: "checkbox", checked: true });
    this.probabilities = h("input", { type: "checkbox" });
    this.choices = h("div", { class: "stack tight" });
    this.message = h("textarea", { rows: 1, ariaLabel: "Message", placeholder: "Write a message" });
    this.message.addEventListener("keydown", (event) => this.#key(event));
    this.send = button("Send", () => this.#submit(), { kind: "primary" });
    this.stopButton = button("Stop", () => this.stop());
    this.log = h("div", { class: "chat-log", role: "log", ariaLive: "off", ariaLabel: "Conversation" });
    this.status = h("p", { role: "status", class: "visually-hidden" });
    this.#build(root);
    this.#showBusy();
    this.#welcome();
    keepText("chat-system", this.system);
    keepText("chat-message", this.message);
    this.earlier = kept("chat", () => (this.models.length ? { turns: this.turns, chosen: this.#chosen().map(({ id }) => id) } : this.earlier));
  }

  #build(root) {
    const composer = h("form", { class: "composer card", onsubmit: (event) => event.preventDefault() }, this.message, this.stopButton, this.send);
    const talk = h("div", { class: "chat" }, this.log, this.status, composer);
    this.toolsLabel = h("label", { class: "check" }, this.tools, "Run the tools it calls");
    const coloured = h("label", { class: "check" }, this.probabilities, "Colour tokens by probability");
    const setup = foldable("Answered by", this.choices, field("System message", this.system), h("div", { class: "chat-checks" }, this.toolsLabel, coloured));
    const side = h("div", { class: "stack chat-side" }, setup, this.panel.element);
    const header = h("div", { class: "row chat-head" }, h("h1", {}, "Chat"), h("span", { class: "push" }), button("New conversation", () => this.#reset()));
    root.append(header, h("div", { class: "with-side" }, talk, side));
  }

  load() {
    return (this.loading ??= this.#load().finally(() => (this.loading = null)));
  }

  /** The models, and the conversation that this tab had before a reload. */
  async #load() {
    if (this.models.length) return;
    const models = [...((await orNull(this.api.models())) ?? [])].sort((one, other) => ORDER.indexOf(one.kind) - ORDER.indexOf(other.kind));
    this.models = models;
    this.boxes = models.map((model, place) => h("input", { type: "checkbox", checked: this.earlier?.chosen.includes(model.id) ?? place === 0, onchange: () => this.#limit() }));
    const lines = models.map((model, place) => h("label", { class: "check" }, this.boxes[place], model.id, !model.is_chat && h("small", {}, "by prompting")));
    fill(this.choices, h("fieldset", { class: "chat-models" }, h("legend", { class: "visually-hidden" }, "Models"), lines));
    this.toolsLabel.hidden = !models.some((model) => model.tools?.length);
    if (!models.length) return;
    this.#limit();
    this.#restore(this.earlier?.turns ?? []);
  }

  #restore(turns) {
    for (const { text, replies } of turns) {
      const models = this.models.filter(({ id }) => id in replies);
      if (!models.length) continue; // the server has other models now
      const turn = this.#add(text);
      turn.begin(models);
      for (const { id } of models) turn.replies.get(id).replay(replies[id]);
    }
    if (this.turns.length) this.#follow(true);
  }

  #chosen() {
    return this.models.filter((_, place) => this.boxes[place].checked);
  }

  /** At least one model is chosen, and not more than fit next to each other. */
  #limit() {
    const chosen = this.boxes.filter((box) => box.checked);
    if (!chosen.length) this.boxes[0].checked = true;
    for (const box of this.boxes) box.disabled = !box.checked && chosen.length >= MAX_MODELS;
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #welcome() {
    const say = (idea) => {
      this.message.value = idea;
      this.#submit();
    };
    const ideas = IDEAS.map((idea) => button(idea, () => say(idea)));
    fill(this.log, h("div", { class: "welcome" }, h("p", { class: "muted" }, "Ask something, or begin with one of these."), h("div", { class: "row" }, ideas)));
  }

  #reset() {
    this.stop();
    this.turns = [];
    this.#welcome();
    this.message.focus();
  }

  async #submit() {
    await this.load(); // where the server did not answer before
    const text = this.message.value.trim();
    if (!text || this.controller || !this.models.length) return;
    this.message.value = "";
    this.#ask(text);
  }

  #ask(text) {
    return this.#answer(this.#add(text), this.#chosen());
  }

  /** A turn at the end of the conversation. */
  #add(text) {
    if (!this.turns.length) this.log.replaceChildren();
    const turn = new ChatTurn(text, {
      edit: (changed) => this.#resend(turn, changed),
      regenerate: (model) => this.#again(turn, model),
      conversation: (model) => this.#messages(model, this.turns.indexOf(turn) + 1),
      why: (model, reply, num) => this.api.post("/why-said", { model: model.id, reply, num }, { quiet: true }),
    });
    this.turns.push(turn);
    this.log.append(turn.element);
    return turn;
  }

  /** A turn with another text; what followed it is dropped. */
  #resend(turn, text) {
    this.stop();
    for (const dropped of this.turns.splice(this.turns.indexOf(turn))) dropped.element.remove();
    return this.#ask(text);
  }

  /** Another reply of one model. What followed the old one is dropped. */
  #again(turn, model) {
    this.stop();
    for (const dropped of this.turns.splice(this.turns.indexOf(turn) + 1)) dropped.element.remove();
    return this.#answer(turn, [model]);
  }

  /** The conversation that a model reads: `count` turns, the last without a reply unless it has one. */
  #messages(model, count) {
    const system = this.system.value.trim();
    const messages = system ? [{ role: "system", content: system }] : [];
    for (const turn of this.turns.slice(0, count)) messages.push({ role: "user", content: turn.text }, ...turn.messagesOf(model.id));
    return messages;
  }

  async #answer(turn, models) {
    this.stop();
    const controller = (this.controller = new AbortController());
    const settings = { ...this.panel.values(), tools: this.tools.checked, probabilities: this.probabilities.checked };
    this.#showBusy();
    turn.begin(models);
    this.#follow(true);
    await Promise.all(models.map((model) => this.#stream(turn, model, settings, controller.signal)));
    if (this.controller === controller) this.controller = null;
    this.#showBusy();
    this.status.textContent = models.map((model) => `${model.id}: ${turn.replies.get(model.id).text}`).join(" ");
  }

  async #stream(turn, model, settings, signal) {
    const reply = turn.replies.get(model.id);
    const messages = this.#messages(model, this.turns.indexOf(turn) + 1);
    try {
      for await (const event of replyOf(this.api, model, messages, settings, signal)) {
        reply.take(event);
        this.#follow();
      }
    } catch (error) {
      if (!isAborted(error) && error.name !== "ApiError") throw error;
      reply.take({ failure: isAborted(error) ? { reason: "stopped" } : { reason: error.message, isError: true } });
    }
  }

  stop() {
    this.controller?.abort();
    this.controller = null;
    this.#showBusy();
  }

  #showBusy() {
    this.stopButton.hidden = !this.controller;
    this.send.hidden = Boolean(this.controller);
  }

  /** Keep the end in view while it grows, unless the person has scrolled up. */
  #follow(always = false) {
    const page = document.documentElement;
    if (always || page.scrollHeight - page.scrollTop - page.clientHeight < 160) page.scrollTop = page.scrollHeight;
  }
}

export const room = {
  id: "chat",
  title: "Chat",
  mount(root, api) {
    this.made = new Chat(root, api);
  },
  load() {
    return this.made.load();
  },
};
