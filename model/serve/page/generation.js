/* Completions and replies as streams of plain values: what the rooms show, from what the API sends (OpenAI's fields and the server's extensions). */

import { promptOf, STOP_TURN } from "./templates.js";

const NUM_ALTERNATIVES = 10;

/** Tokens {id, text, bytes, logprob, top} from the log-probabilities of a completion. */
export function tokensOf(logprobs) {
  const plain = ({ token, ...rest }) => ({ text: token, ...rest });
  return logprobs.tokens.map((text, place) => ({
    id: logprobs.token_ids[place],
    text,
    bytes: logprobs.bytes[place],
    logprob: logprobs.token_logprobs[place],
    top: (logprobs.top[place] ?? []).map(plain),
  }));
}

/** The ids of a text as a document, <|bos|> first. */
export async function idsOf(api, model, text, signal) {
  return (await api.post("/tokenize", { model, prompt: text, add_special_tokens: true }, { signal })).tokens;
}

/** Yields {tokens, finish}: what follows `ids`, in pieces. */
export async function* completionOf(api, model, ids, sampling, signal) {
  const body = { model, prompt: ids, logprobs: NUM_ALTERNATIVES, ...sampling };
  const options = { signal, quiet: true }; // the completion shows its error itself
  // Which beam wins is known at the end: there is nothing to stream.
  const events = sampling.use_beam_search ? [await api.post("/v1/completions", body, options)] : api.stream("/v1/completions", { ...body, stream: true }, options);
  for await (const event of events) {
    const choice = event.choices?.[0];
    if (choice) yield { tokens: choice.logprobs ? tokensOf(choice.logprobs) : [], finish: choice.finish_reason };
  }
}

/** The tokens of a text with the probability that a model gives each; the first, <|bos|>, has none. */
export async function scoredText(api, model, text, signal) {
  const body = { model, prompt: await idsOf(api, model, text, signal), max_tokens: 0, echo: true, logprobs: NUM_ALTERNATIVES };
  const answer = await api.post("/v1/completions", body, { signal });
  return tokensOf(answer.choices[0].logprobs);
}

/** Yields {text, tokens}, {step} and {notice}, at the end {finish, messages}: one reply of a model to a conversation. `settings`: fields of
   sampling, and `tools`: the server runs those that the model calls; `probabilities`: `tokens` has the tokens of the text.

   A base model has learned no turns. It gets the conversation as a text that it continues, and stops at the end of the line. */
export async function* replyOf(api, model, messages, settings, signal) {
  const events = (model.is_chat ? chatEvents : promptedEvents)(api, model, messages, settings, signal);
  let text = "";
  let last = { finish: null };
  for await (const event of events) {
    const { finish, messages: turns, ...shown } = event;
    text += shown.text ?? "";
    last = { finish: finish ?? last.finish, messages: turns ?? last.messages };
    if (shown.text || shown.tokens?.length || shown.step || shown.notice) yield shown;
  }
  yield { ...last, messages: last.messages ?? [{ role: "assistant", content: text }] };
}

async function* chatEvents(api, model, messages, { tools, probabilities, ...sampling }, signal) {
  const body = { model: model.id, messages, stream: true, truncate: true, ...sampling };
  if (tools && model.tools?.length) body.server_tools = true;
  if (probabilities) Object.assign(body, { logprobs: true, top_logprobs: NUM_ALTERNATIVES });
  for await (const event of api.stream("/v1/chat/completions", body, { signal, quiet: true })) {
    const choice = event.choices?.[0];
    const delta = choice?.delta ?? {};
    const tokens = choice?.logprobs?.content?.map(({ token, ...rest }) => ({ text: token, ...rest }));
    yield { text: delta.content ?? "", tokens, step: delta.tool_step, notice: event.notice, messages: delta.messages, finish: choice?.finish_reason };
  }
}

async function* promptedEvents(api, model, messages, settings, signal) {
  let rest = messages;
  for (;;) {
    try {
      return yield* promptedOnce(api, model, rest, settings, signal);
    } catch (error) {
      const shorter = withoutOldest(rest);
      if (error.code !== "context_length_exceeded" || !shorter) throw error;
      if (rest === messages) yield { notice: "The oldest messages do not fit and were left out." };
      rest = shorter;
    }
  }
}

async function* promptedOnce(api, model, messages, { tools: _, probabilities, ...sampling }, signal) {
  const body = { model: model.id, prompt: promptOf(messages), stream: true, ...sampling, stop: [STOP_TURN, ...(sampling.stop ?? [])] };
  if (probabilities) body.logprobs = NUM_ALTERNATIVES;
  let isFirst = true;
  for await (const event of api.stream("/v1/completions", body, { signal, quiet: true })) {
    const choice = event.choices?.[0];
    const text = isFirst ? choice?.text?.trimStart() : choice?.text; // the space after "Assistant:"
    if (text) isFirst = false;
    yield { text, tokens: choice?.logprobs && tokensOf(choice.logprobs), finish: choice?.finish_reason };
  }
}

/** A conversation without its first exchange; null where it has only one. The system message stays. */
function withoutOldest(messages) {
  const system = messages.filter((message) => message.role === "system");
  const turns = messages.filter((message) => message.role !== "system");
  const second = turns.findIndex((message, place) => place > 0 && message.role === "user");
  return second < 0 ? null : [...system, ...turns.slice(second)];
}

/** What a finish reason means. */
export function finishText(reason) {
  return { stop: "ended by itself", length: "reached the longest length", tool_calls: "calls a tool" }[reason] ?? reason ?? "stopped";
}
