// Short messages above the field, where they cover nothing, and what a screen reader is told. Messages that need an
// answer stay longer.

import { byId, el, iconButton } from "./dom.js";

const TIME = 6000; // ms
const TIME_TO_ACT = 20_000;

/** Shows a message; with `action` a button does something about it, and `stays` waits until it is closed. */
export function say(message, { label, action, stays = false } = {}) {
  const shown = [...byId("notices").children].find((notice) => notice.firstChild.textContent === message);
  shown?.remove(); // the same again moves to the end instead of piling up
  const notice = el("div", { class: "notice" }, el("span", {}, message));
  const close = () => notice.remove();
  if (action) {
    const act = () => {
      close();
      action();
    };
    notice.append(el("button", { type: "button", class: "link", onclick: act }, label));
  }
  notice.append(iconButton("close", "Close this message", close));
  byId("notices").append(notice);
  if (!stays) setTimeout(close, action ? TIME_TO_ACT : TIME);
}

/** Something went wrong with what should be kept: it stays until it is read. */
export const trouble = (message) => say(message, { stays: true });

/** Tells a screen reader what can otherwise be seen. */
export function announce(text) {
  byId("announcer").textContent = text;
}
