/* The server's API: JSON requests, streams of server-sent events, the API key, and errors for the person to read.

   Reads and writes nothing but the key, in sessionStorage. Every failure is shown (`onError`) and thrown as an ApiError, so that a room only has to
   restore its buttons. A request that was aborted throws a DOMException named AbortError, which is shown to nobody. */

const KEY = "crawl2chat-key";
const GONE = "The server does not answer. Is `crawl2chat serve` still running?";

export class ApiError extends Error {
  /** `code`: the server's name of the mistake, such as context_length_exceeded, or "". */
  constructor(message, status, code = "") {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

/** True where a person has stopped the request, which is no error. */
export const isAborted = (error) => error?.name === "AbortError";

/** The value of a promise; null where a request failed, which the page has shown, or was stopped. */
export async function orNull(promise) {
  try {
    return await promise;
  } catch (error) {
    if (isAborted(error) || error instanceof ApiError) return null;
    throw error;
  }
}

/** The `data:` of each server-sent event in a body, until [DONE]. An event may arrive in pieces, and several in one. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // a room that stops reading ends the request
  }
}

class Api {
  onError = () => {};
  onKeyNeeded = () => {};
  onGone = () => {}; // the server has not answered
  #models = null;

  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(value) {
    sessionStorage.setItem(KEY, value);
  }

  /** The answer to GET, as JSON. */
  get = (path, options = {}) => this.#json(path, { ...options, method: "GET" });

  /** The answer to a request with a JSON body, as JSON. `quiet`: the caller shows the error itself. */
  send = (method, path, body, options = {}) => this.#json(path, { ...options, method, body: JSON.stringify(body) });
  post = (path, body, options = {}) => this.send("POST", path, body, options);

  /** The events of a streamed answer, one object each. An error inside the stream is thrown. */
  async *stream(path, body, options = {}) {
    const response = await this.#fetch(path, { ...options, method: "POST", body: JSON.stringify(body) });
    try {
      for await (const event of readEvents(response.body)) {
        if (event.error) throw new ApiError(event.error.message ?? "The stream ended with an error.", 200);
        yield event;
      }
    } catch (error) {
      if (isAborted(error)) throw error;
      // The server has ended, or something between it and this page. Or the person is leaving the page, which then keeps the reply as it stands.
      await new Promise((resolve) => setTimeout(resolve));
      throw this.#report(error instanceof ApiError ? error : new ApiError("The connection broke in the middle of the answer.", 0), options);
    }
  }

  /** True when the server answers. */
  isUp = () => fetch("/health").then((response) => response.ok, () => false);

  /** A file of the server, for which a link could send no key. */
  blob = async (path) => (await this.#fetch(path, {})).blob();

  /** The models that the server has loaded, asked once. */
  models() {
    this.#models ??= this.get("/v1/models").then((answer) => answer.data);
    this.#models.catch(() => (this.#models = null)); // asked again by the next room
    return this.#models;
  }

  async #json(path, options) {
    const response = await this.#fetch(path, options);
    try {
      return await response.json();
    } catch (error) {
      if (isAborted(error)) throw error;
      throw this.#report(new ApiError(`The server's answer to ${path} is not JSON.`, response.status), options);
    }
  }

  async #fetch(path, options) {
    const { quiet: _, ...request } = options;
    const headers = request.body === undefined ? {} : { "Content-Type": "application/json" };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(path, { ...request, headers: { ...headers, ...request.headers } });
    } catch (error) {
      if (isAborted(error)) throw error;
      throw this.#report(new ApiError(GONE, 0), options);
    }
    if (response.ok) return response;
    const error = await errorOf(response, path);
    if (response.status !== 401) throw this.#report(error, options);
    this.onKeyNeeded();
    throw error;
  }

  #report(error, options) {
    if (!options.quiet) this.onError(error.message);
    if (error.status === 0) this.onGone();
    return error;
  }
}

async function errorOf(response, path) {
  const body = await response.json().catch(() => ({})); // something else may have answered, a proxy for example
  const message = body.error?.message ?? `${path} failed with status ${response.status}.`;
  return new ApiError(message, response.status, body.error?.code ?? "");
}

export const api = new Api();
