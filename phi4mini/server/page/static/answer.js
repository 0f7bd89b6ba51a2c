// One growing answer: it asks the server, fills a node of the tree and measures times. It does not draw or store.
// Promise: the reason for its end (the model, a stop, an error, a lost connection) is written into the node, as
// `finish` or `error`.

import { chat, ServerError, Unreachable } from "./api.js";
import { requestMessages } from "./tree.js";
import { requestParameters } from "./parameters.js";

export class Answer {
  #abort = new AbortController();
  #began = 0;
  #first = 0;
  #pieces = 0;

  /** conversation, node: where the answer goes. onChange(): the node has changed. */
  constructor(conversation, node, onChange) {
    Object.assign(this, { conversation, node, onChange, progress: null, unreachable: false });
  }

  /** Writes the answer until it ends; never rejects. `goOn`: the node's text is continued. */
  async run(goOn) {
    const { node } = this;
    delete node.error;
    delete node.finish;
    this.#began = performance.now();
    try {
      for await (const chunk of chat(this.#body(goOn), this.#abort.signal)) this.#take(chunk);
      node.finish ??= "stop";
    } catch (error) {
      this.#takeError(error);
    }
    this.progress = null;
    this.#measure({});
    this.onChange();
  }

  #takeError(error) {
    if (this.#abort.signal.aborted) {
      this.node.finish = "stopped";
      return;
    }
    this.node.error = { message: error.message, status: error.status ?? 0 };
    this.unreachable = error instanceof Unreachable;
    if (!this.unreachable && !(error instanceof ServerError)) console.error(error); // a fault of this page
  }

  stop() {
    this.#abort.abort();
  }

  /** Tokens a second so far, by pieces; null before there is a rate. */
  get rate() {
    const seconds = (performance.now() - this.#first) / 1000;
    return this.#pieces > 3 && seconds > 0.3 ? (this.#pieces - 1) / seconds : null;
  }

  #body(goOn) {
    const { conversation, node } = this;
    const from = goOn ? node : conversation.nodes[node.parent];
    const messages = requestMessages(conversation, from);
    const stream = { stream: true, stream_options: { include_usage: true }, return_progress: true };
    const continuing = goOn ? { continue_final_message: true } : {};
    return { messages, ...requestParameters(conversation.params), ...stream, ...continuing };
  }

  #take(chunk) {
    const choice = chunk.choices?.[0];
    if (chunk.prompt_progress) this.progress = chunk.prompt_progress;
    if (choice?.delta?.content || choice?.delta?.tool_calls) this.#takeDelta(choice.delta);
    if (choice?.finish_reason) this.node.finish = choice.finish_reason;
    if (chunk.usage || chunk.timings) this.#measure(chunk);
    this.onChange();
  }

  #takeDelta(delta) {
    if (!this.#pieces) this.#first = performance.now();
    this.#pieces += 1;
    this.progress = null;
    this.node.content += delta.content ?? "";
    for (const piece of delta.tool_calls ?? []) this.#takeCall(piece);
  }

  #takeCall({ index = 0, id, function: part = {} }) {
    this.node.tool_calls ??= [];
    const call = (this.node.tool_calls[index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    if (id) call.id = id;
    call.function.name += part.name ?? "";
    call.function.arguments += part.arguments ?? "";
  }

  /** Times and token counts: the server's figures, or the page's own where the server gave none. */
  #measure({ usage, timings }) {
    const stats = (this.node.stats ??= {});
    if (this.#pieces) stats.first_ms = this.#first - this.#began;
    if (this.rate !== null && !stats.exact) stats.rate = this.rate;
    if (usage) {
      stats.context = usage.prompt_tokens + usage.completion_tokens;
      stats.prompt = usage.prompt_tokens;
      stats.tokens = usage.completion_tokens;
      stats.cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    }
    if (timings?.predicted_per_second) {
      stats.rate = timings.predicted_per_second;
      stats.exact = true;
    }
    if (timings?.cache_n !== undefined) stats.cached = timings.cache_n;
  }
}
