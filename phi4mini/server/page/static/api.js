// Requests to the server: they carry the API key, errors keep the server's words, streams become objects.
// It does not know conversations or elements. A key is held in memory, and in localStorage only if `remember` says so.

const KEY = "phi4mini.key";

/** The server refused, or ended a stream with an error: its message, and the status if there was one. */
export class ServerError extends Error {
  constructor(message, { status = 0, type = "", code = "" } = {}) {
    super(message);
    Object.assign(this, { status, type, code });
  }
}

/** The server cannot be reached, or the connection was lost. */
export class Unreachable extends Error {}

let key = "";
try {
  key = localStorage.getItem(KEY) ?? "";
} catch {
  // no storage: a key is asked for each time
}

/** Uses this key from now on; `remember` keeps it in this browser. Returns whether it was kept. */
export function useKey(value, remember) {
  key = value;
  try {
    if (remember) localStorage.setItem(KEY, value);
    else localStorage.removeItem(KEY);
    return remember;
  } catch {
    return false;
  }
}

let askForKey = async () => null;
let asking = null; // one question at a time, however many requests wait for it

/** `ask(message)` is called when the server wants a key; if it returns true, the request is sent again. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** A response that is not an error. `quiet` requests do not ask for a key. */
async function send(path, body, { signal, quiet = false } = {}) {
  for (;;) {
    const used = key;
    try {
      return await sendOnce(path, body, signal);
    } catch (error) {
      if (error.status !== 401 || quiet) throw error;
      if (used !== key) continue; // another request has asked meanwhile
      asking ??= askForKey(error.message).finally(() => (asking = null));
      if (!(await asking)) throw error;
    }
  }
}

async function sendOnce(path, body, signal) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = body === undefined ? { method: "GET" } : { method: "POST", body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, { ...sent, headers, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The server does not answer.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    error = { message: text.slice(0, 300) };
  }
  const message = error.message || `${response.status} ${response.statusText}`;
  return new ServerError(message, { status: response.status, type: error.type ?? "", code: error.code ?? "" });
}

/** JSON from a GET, or from a POST where there is a body; options as in `send`. */
export async function json(path, body, options) {
  return (await send(path, body, options)).json();
}

/** True if the server answers at all; a server that is loading does. */
export async function alive() {
  try {
    await send("/health", undefined, { quiet: true });
    return true;
  } catch (error) {
    return error instanceof ServerError;
  }
}

/** Tokens in a text. */
export async function countTokens(content, signal) {
  return (await json("/tokenize", { content }, { signal, quiet: true })).tokens.length;
}

/** Tokens of the prompt that a request with this body would make. */
export async function countPrompt(body, signal) {
  return (await json("/v1/chat/completions/input_tokens", body, { signal, quiet: true })).input_tokens;
}

/** Chunks of a streamed chat completion. Throws ServerError for an error in it, Unreachable where it breaks off. */
export async function* chat(body, signal) {
  const response = await send("/v1/chat/completions", body, { signal });
  for await (const data of serverSentEvents(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(chunk.error.message, chunk.error);
    yield chunk;
  }
  throw new Unreachable("The connection ended before the answer was complete.");
}

/** The `data` of each event; comments, which keep the connection open, are skipped. */
async function* serverSentEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (rest + value).split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The connection broke off before the answer was complete.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
