// The state of the connection. If the server cannot be reached the page says so, tries again at growing intervals, and
// says when it is back. It never sends a request again by itself: a broken answer has a button for that.

import { alive, json } from "./api.js";
import { announce } from "./notice.js";
import { byId } from "./dom.js";

const FIRST = 1000; // ms
const LONGEST = 10_000;
const LOOK = 30_000; // between two looks while all is well

export class Connection {
  #away = false;
  #timer = 0;
  #wait = FIRST;

  /** onProps(props): what the server said of itself, each time it is there again. */
  constructor(onProps) {
    this.onProps = onProps;
    addEventListener("online", () => this.look());
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
  }

  async start() {
    await this.#learn();
    this.#later(LOOK);
  }

  /** Looks now; called when a request could not be sent. */
  async look() {
    clearTimeout(this.#timer);
    const there = await alive();
    if (there && this.#away) await this.#back();
    if (!there) this.#lost();
    this.#later(there ? LOOK : this.#wait);
  }

  #later(pause) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (document.hidden ? this.#later(pause) : this.look()), pause);
  }

  #lost() {
    this.#wait = this.#away ? Math.min(2 * this.#wait, LONGEST) : FIRST;
    this.#away = true;
    byId("away").hidden = false;
    const seconds = Math.round(this.#wait / 1000);
    byId("away-text").textContent = `The server does not answer. Trying again every ${seconds} s.`;
  }

  async #back() {
    this.#away = false;
    byId("away").hidden = true;
    announce("The server is there again.");
    await this.#learn();
  }

  async #learn() {
    try {
      this.onProps(await json("/props"));
    } catch (error) {
      if (error.status === undefined) this.#lost();
    }
  }
}
