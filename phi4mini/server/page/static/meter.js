// How full the context is: the figures of the last answer, and what has been written since as the server counts it.
// "about" stands where something was counted apart from the conversation's own control tokens.

import { countTokens } from "./api.js";
import { byId, grouped } from "./dom.js";
import { shownPath } from "./tree.js";

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
    const { current } = this.chat;
    const path = shownPath(current);
    const known = path.findLastIndex((node) => node.stats?.context);
    const texts = path.slice(known + 1).map((node) => node.content);
    if (known < 0) texts.unshift(current.system);
    const rest = [...texts, this.#draft].filter(Boolean).join("\n");
    try {
      const counted = rest ? await countTokens(rest, this.#abort.signal) : 0;
      this.#show((path[known]?.stats.context ?? 0) + counted, counted > 0);
    } catch (error) {
      if (error.name !== "AbortError") this.#show(null);
    }
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
