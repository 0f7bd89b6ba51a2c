// The message field at the foot of the page. Unsent text is a draft of its conversation, kept in sessionStorage, so a
// reload keeps it. It does not know what happens to a text that is sent.

import { byId, icon } from "./dom.js";
import { openCalls } from "./tree.js";

const coarse = matchMedia("(pointer: coarse)"); // on a touch keyboard Enter is a new line, the button sends

export class Composer {
  #form = byId("composer");
  #button = byId("send");
  #conversation = null;
  field = byId("draft");

  /** onSend(): something was sent. onEditLast(): the user wants to edit the last message. */
  constructor(chat, { onSend, onEditLast, onDraft }) {
    Object.assign(this, { chat, onSend, onEditLast, onDraft });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (chat.running) chat.stop();
      else this.#send();
    });
    this.field.addEventListener("keydown", (event) => this.#key(event));
    this.field.addEventListener("input", () => this.#drafted());
    for (const type of ["path", "ended"]) chat.addEventListener(type, () => this.#follow());
  }

  #key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !coarse.matches) {
      event.preventDefault();
      this.#send();
    } else if (event.key === "ArrowUp" && this.field.value === "" && !this.chat.running) {
      if (this.onEditLast()) event.preventDefault();
    }
  }

  #send() {
    const text = this.field.value;
    if (!text.trim() || this.chat.running) return; // while an answer is written, the draft waits
    this.field.value = "";
    this.#drafted();
    this.chat.send(text);
    this.onSend();
  }

  /** Shows the draft of the conversation that is shown now, and whether it can be sent. */
  #follow() {
    const { current, running } = this.chat;
    if (this.#conversation !== current) {
      this.#conversation = current;
      this.field.value = draft(current.id);
      this.#fit();
    }
    const [call] = openCalls(current);
    this.field.placeholder = call ? `Result of ${call.function.name}` : "Message";
    const label = running ? "Stop" : "Send";
    if (this.#button.getAttribute("aria-label") === label) return;
    this.#button.setAttribute("aria-label", label);
    this.#button.title = running ? "Stop (Esc)" : "Send (Enter)";
    this.#button.replaceChildren(icon(running ? "stop" : "send"));
    this.#button.classList.toggle("stopping", Boolean(running));
  }

  #drafted() {
    draft(this.chat.current.id, this.field.value);
    this.#fit();
    this.onDraft(this.field.value);
  }

  /** As high as the text, within the limits of the style sheet. */
  #fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }
}

/** Reads a conversation's draft, or keeps it. */
function draft(id, text) {
  const name = `phi4mini.draft.${id}`;
  try {
    if (text === undefined) return sessionStorage.getItem(name) ?? "";
    if (text) sessionStorage.setItem(name, text);
    else sessionStorage.removeItem(name);
  } catch {
    // full or not allowed: the draft is in the field all the same
  }
  return "";
}
