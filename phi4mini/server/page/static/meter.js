// The context in use: the counts of the last answer, plus the tokens written since, which the server counts.
// Before the first answer the server counts the whole prompt, with its template and tools; afterwards only new text, so
// that a long conversation is not sent at every pause. "about" marks a count without control tokens.

import { countPrompt, countTokens } from "./api.js";
import { byId, grouped } from "./dom.js";
import { requestParameters } from "./parameters.js";
import { requestMessages, shownPath } from "./tree.js";

const PAUSE = 500; // ms of quiet before a draft is counted

export class Meter {
  context = 0; // tokens the server holds; 0 while it is not known
  #draft = "";
  #timer = 0;
  #abort = new AbortController();

  constructor(chat) {
    this.chat = chat;
    for (const type of ["path", "ended"]) chat.addEventListener(type, () => this.#soon(0));
  }

  /** What is in the field now. */
  setDraft(text) {
    this.#draft = text;
    this.#soon(PAUSE);
  }

  /** The server's context, in tokens. */
  setContext(tokens) {
    this.context = tokens;
    this.#soon(0);
  }

  #soon(pause) {
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#timer = setTimeout(() => this.#count(), pause);
  }

  async #count() {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const path = shownPath(this.chat.current);
    const known = path.findLastIndex((node) => node.stats?.context);
    const ofTexts = path.every((node) => node.role !== "tool" && !node.tool_calls);
    try {
      if (known < 0 && ofTexts) await this.#countAll(path, signal);
      else await this.#countRest(path[known]?.stats.context ?? 0, path.slice(known + 1), signal);
    } catch (error) {
      if (error.name !== "AbortError") this.#show(null);
    }
  }

  /** The prompt as it would be sent; an answer at its end is counted as if it were continued. */
  async #countAll(path, signal) {
    const { current } = this.chat;
    const messages = requestMessages(current, path.at(-1));
    if (this.#draft) messages.push({ role: "user", content: this.#draft });
    const { tools } = requestParameters(current.params);
    const continuing = messages.at(-1)?.role === "assistant" ? { continue_final_message: true } : {};
    this.#show(messages.length ? await countPrompt({ messages, tools, ...continuing }, signal) : 0, false);
  }

  async #countRest(context, nodes, signal) {
    const system = context ? "" : this.chat.current.system;
    const rest = [system, ...nodes.map((node) => node.content), this.#draft].filter(Boolean).join("\n");
    const counted = rest ? await countTokens(rest, signal) : 0;
    this.#show(context + counted, counted > 0);
  }

  #show(tokens, about) {
    const meter = byId("meter");
    meter.hidden = tokens === null || tokens === 0 || !this.context;
    if (meter.hidden) return;
    const bar = byId("meter-bar");
    bar.max = this.context;
    bar.value = Math.min(tokens, this.context);
    meter.classList.toggle("nearly-full", tokens > 0.85 * this.context);
    byId("meter-text").textContent = `${about ? "about " : ""}${grouped(tokens)} of ${grouped(this.context)} tokens`;
  }
}
