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
  // Which beam wins is known at the end: there is nothing to stream.
  const events = sampling.use_beam_search ? [await api.post("/v1/completions", body, { signal })] : api.stream("/v1/completions", { ...body, stream: true }, { signal });
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

/** Yields {text}, {step} and {notice}, at the end {finish, messages}: one reply of a model to a conversation.

   A base model has learned no turns. It gets the conversation as a text that it continues, and stops before the next turn of the person. */
export async function* replyOf(api, model, messages, settings, signal) {
  const events = model.is_chat ? chatEvents(api, model, messages, settings, signal) : promptedEvents(api, model, messages, settings, signal);
  let text = "";
  let last = { finish: null };
  for await (const event of events) {
    const { finish, messages: turns, ...shown } = event;
    text += shown.text ?? "";
    last = { finish: finish ?? last.finish, messages: turns ?? last.messages };
    if (shown.text || shown.step || shown.notice) yield shown;
  }
  yield { ...last, messages: last.messages ?? [{ role: "assistant", content: text }] };
}

async function* chatEvents(api, model, messages, { tools, ...sampling }, signal) {
  const body = { model: model.id, messages, stream: true, truncate: true, ...sampling };
  if (tools && model.tools?.length) body.server_tools = true;
  for await (const event of api.stream("/v1/chat/completions", body, { signal })) {
    const choice = event.choices?.[0];
    const delta = choice?.delta ?? {};
    yield { text: delta.content ?? "", step: delta.tool_step, notice: event.notice, messages: delta.messages, finish: choice?.finish_reason };
  }
}

async function* promptedEvents(api, model, messages, { tools: _, ...sampling }, signal) {
  const body = { model: model.id, prompt: promptOf(messages), stream: true, ...sampling, stop: [STOP_TURN, ...(sampling.stop ?? [])] };
  let isFirst = true;
  for await (const event of api.stream("/v1/completions", body, { signal })) {
    const choice = event.choices?.[0];
    // The space after "Assistant:" belongs to the format.
    const text = isFirst ? choice?.text?.trimStart() : choice?.text;
    if (text) isFirst = false;
    yield { text, finish: choice?.finish_reason };
  }
}

/** What a finish reason means. */
export function finishText(reason) {
  return { stop: "ended by itself", length: "reached the longest length", tool_calls: "calls a tool" }[reason] ?? reason ?? "stopped";
}
