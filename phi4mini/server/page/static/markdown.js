// A text shown as Markdown: the server renders it to safe HTML, this puts it into the page.
// Promises: the text is on the page at once, plain if need be; while it grows the server is asked at most every 150 ms
// and for no more than a tenth of the time; blocks that did not change keep their elements and what is selected there.
// It does not make HTML safe: that is the server's allow-list, and the page's policy that runs no script but our files.

import { json } from "./api.js";
import { copyText, el } from "./dom.js";

const PAUSE = 150; // ms between two requests for one text
const SHARE = 10; // a request of t ms is followed by a pause of at least 10 t
const MOST = 200_000; // characters; beyond it the server would send plain text
const AT_ONCE = 4; // requests on their way
const KEPT = 200; // rendered texts kept in memory

const asItIs = { createHTML: (html) => html };
const policy = window.trustedTypes?.createPolicy("rendered", asItIs) ?? asItIs;
const rendered = new Map(); // text -> html, oldest first
const waiting = [];
let running = 0;

/** Runs a task when fewer than AT_ONCE are running: a long conversation is opened without a storm of requests. */
async function inTurn(task) {
  if (running >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  running += 1;
  try {
    return await task();
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}

async function htmlOf(text, keep) {
  const known = rendered.get(text);
  if (known !== undefined) return known;
  const { html } = await inTurn(() => json("/page/render", { text }, { quiet: true }));
  if (keep) {
    rendered.set(text, html);
    if (rendered.size > KEPT) rendered.delete(rendered.keys().next().value);
  }
  return html;
}

/** One text in one element; `set` it as often as it grows. */
export class Rendered {
  #text = "";
  #final = false;
  #shown = null; // the text whose HTML is in the element
  #busy = false;
  #failed = false;

  /** onSettled(): what is on the page may have caught up with the text. */
  constructor(element, onSettled) {
    Object.assign(this, { element, onSettled });
    element.addEventListener("click", copyCode);
  }

  /** Whether all of the text is on the page, as HTML or, where it stays so, plain. */
  get settled() {
    return !this.#busy || this.#shown === this.#text;
  }

  /** Shows `text`; `final` says that it will not grow. */
  set(text, final) {
    this.#text = text;
    this.#final = final;
    if (this.#shown === null || text.length > MOST || this.#failed) this.#plain();
    if (!this.#busy && text !== this.#shown && text.length <= MOST && text.trim() !== "") this.#work();
  }

  #plain() {
    this.element.replaceChildren(el("p", { class: "unrendered" }, this.#text));
  }

  async #work() {
    this.#busy = true;
    while (this.#shown !== this.#text && this.#text.length <= MOST) {
      const text = this.#text;
      const began = performance.now();
      try {
        const html = await htmlOf(text, this.#final);
        this.#failed = false;
        this.#shown = text;
        update(this.element, html);
        this.onSettled();
      } catch {
        this.#failed = true; // the text stays as it is, plain; the next `set` tries again
        this.#plain();
        break;
      }
      if (!this.#final) await this.#pause(Math.max(PAUSE, SHARE * (performance.now() - began)));
    }
    if (this.#text.length > MOST) this.#plain(); // what came last was the HTML of its beginning
    this.#busy = false;
    this.onSettled();
  }

  /** Waits, but no longer once the text is complete. */
  async #pause(time) {
    const end = performance.now() + time;
    while (performance.now() < end && !this.#final) await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function update(element, html) {
  const template = el("template");
  template.innerHTML = policy.createHTML(html);
  const fresh = [...template.content.childNodes];
  const old = [...element.childNodes];
  fresh.forEach((node, at) => {
    if (at >= old.length) element.append(node);
    else if (!old[at].isEqualNode(node)) old[at].replaceWith(node);
  });
  old.slice(fresh.length).forEach((node) => node.remove());
}

function copyCode(event) {
  const button = event.target.closest("button.copy");
  if (button) copyText(button.closest(".code").querySelector("pre").textContent, button);
}
