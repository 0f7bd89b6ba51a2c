// The shown conversation, message by message. Views are kept while their node is shown, so nothing is drawn twice.
// While an answer grows the page follows it, unless the reader has scrolled away; it is drawn at most once a frame.

import { byId, el } from "./dom.js";
import { MessageView } from "./message.js";
import { shownPath } from "./tree.js";

const NEAR = 80; // px from the end that still count as being there

export class Thread {
  #views = new Map(); // node id -> MessageView
  #shownIn = null; // the conversation they belong to
  #stale = new Set();
  #following = true;
  #scroller = byId("scroller");
  #list = byId("thread");
  #jump = byId("jump");

  constructor(chat) {
    this.chat = chat;
    chat.addEventListener("path", () => this.#drawPath());
    chat.addEventListener("node", ({ detail }) => this.#later(detail));
    chat.addEventListener("ended", ({ detail }) => this.#later(detail.node));
    this.#scroller.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    this.#jump.addEventListener("click", () => this.follow());
    const resized = new ResizeObserver(() => this.#following && this.#toEnd());
    for (const element of [this.#list, this.#scroller]) resized.observe(element); // a notice takes some of the height
  }

  /** Goes to the end and stays there. */
  follow() {
    this.#following = true;
    this.#toEnd();
    this.#jump.hidden = true;
  }

  /** Opens the last thing the user said for editing; false when there is none. */
  editLast() {
    const last = shownPath(this.chat.current).findLast((node) => node.role === "user");
    if (last) this.#views.get(last.id).edit();
    return Boolean(last);
  }

  #drawPath() {
    const { current } = this.chat;
    const path = shownPath(current);
    const shown = new Set(path.map((node) => node.id));
    const opened = this.#shownIn !== current;
    this.#shownIn = current;
    for (const id of this.#views.keys()) if (!shown.has(id)) this.#views.delete(id);
    const elements = path.map((node) => this.#viewOf(node).element);
    if (elements.length) this.#list.replaceChildren(...elements);
    else this.#list.replaceChildren(welcome());
    path.forEach((node) => this.#draw(node));
    if (opened || this.chat.running) this.follow();
  }

  #viewOf(node) {
    const known = this.#views.get(node.id);
    if (known?.node === node) return known;
    const view = new MessageView(this.chat, node);
    this.#views.set(node.id, view);
    return view;
  }

  #later(node) {
    if (!this.#stale.size) requestAnimationFrame(() => this.#drawStale());
    this.#stale.add(node);
  }

  #drawStale() {
    for (const node of this.#stale) this.#draw(node);
    this.#stale.clear();
  }

  #draw(node) {
    const view = this.#views.get(node.id);
    if (!view) return; // in a conversation or a branch that is not shown
    view.draw(this.chat.answers.get(node.id), shownPath(this.chat.current).at(-1) === node);
  }

  #noteScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#jump.hidden = this.#following;
  }

  #toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}

function welcome() {
  const touch = matchMedia("(pointer: coarse)").matches;
  const keys = "Enter sends, Shift+Enter begins a new line, ? lists all keys.";
  const hint = touch ? "What is said here is kept in this browser only." : keys;
  return el("div", { class: "welcome" }, el("h2", {}, "What would you like to know?"), el("p", {}, hint));
}
