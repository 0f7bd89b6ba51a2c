// One message on the page: its text, tool calls, progress, error, figures and buttons.
// It draws a node of the tree and hands the user's commands to `chat`; it decides nothing.

import { copyText, el, grouped, iconButton } from "./dom.js";
import { Rendered } from "./markdown.js";

const NAMES = { user: "You said", assistant: "Answer", tool: "Result of a call" };
const ENDS = {
  length: "ended at the limit of tokens",
  stopped: "stopped",
  content_filter: "ended by the server",
};

export class MessageView {
  #body = el("div", { class: "body" });
  #calls = el("div", { class: "calls" });
  #status = el("div", { class: "progress-line", hidden: true });
  #fault = el("div", { class: "fault", role: "alert", hidden: true });
  #foot = el("footer", { class: "message-foot" });
  #stats = el("span", { class: "stats" });
  #rendered = null;
  #drawnCalls = "";
  #drawnFoot = "";
  #editing = false;
  #writing = false;

  constructor(chat, node) {
    Object.assign(this, { chat, node });
    this.element = el("article", { class: `message ${node.role}`, "aria-label": NAMES[node.role], "data-id": node.id });
    this.element.append(this.#body, this.#calls, this.#status, this.#fault, this.#foot);
    if (node.role === "assistant") this.#rendered = new Rendered(this.#body, () => this.#drawState());
  }

  /** Updates the page from the node. `answer`: the Answer that is writing it, if any. */
  draw(answer, isLast) {
    this.#writing = Boolean(answer);
    this.element.classList.toggle("last", isLast);
    if (this.#rendered) this.#rendered.set(this.node.content, !answer);
    else if (!this.#editing) this.#body.textContent = this.node.content;
    this.#drawState();
    this.#drawCalls();
    this.#drawProgress(answer?.progress);
    this.#drawFault(answer);
    this.#drawFoot(answer, isLast);
  }

  /** An answer is done when all of it is on the page, which is a moment after the server has sent the last of it. */
  #drawState() {
    const busy = this.#writing || !(this.#rendered?.settled ?? true);
    const begun = this.node.content || this.node.tool_calls;
    this.element.dataset.state = !busy ? "done" : begun ? "writing" : "waiting";
    this.element.setAttribute("aria-busy", String(busy));
  }

  #drawCalls() {
    const calls = this.node.tool_calls ?? [];
    const now = JSON.stringify(calls);
    if (now === this.#drawnCalls) return;
    this.#drawnCalls = now;
    this.#calls.replaceChildren(...calls.filter(Boolean).map(callBox));
  }

  #drawProgress(progress) {
    this.#status.hidden = !progress || progress.total < 1;
    if (this.#status.hidden) return;
    const { total, cache = 0, processed } = progress;
    const cached = cache ? `, ${grouped(cache)} from the cache` : "";
    this.#status.replaceChildren(
      el("progress", { max: total, value: processed, "aria-label": "Reading the prompt" }),
      el("span", {}, `Reading the prompt: ${grouped(processed)} of ${grouped(total)} tokens${cached}`),
    );
  }

  #drawFault(answer) {
    const { error } = this.node;
    if (this.#fault.hidden === !error && this.#fault.firstChild?.textContent === error?.message) return;
    this.#fault.hidden = !error || Boolean(answer);
    if (!error) return;
    const retry = () => this.chat.goOn(this.node);
    const again = el("button", { type: "button", class: "link", onclick: retry }, "Try again");
    this.#fault.replaceChildren(el("span", {}, error.message), again);
  }

  #drawFoot(answer, isLast) {
    const { at, of } = this.chat.branches(this.node);
    const now = JSON.stringify([at, of, Boolean(answer), isLast, this.node.finish, Boolean(this.node.content)]);
    if (now !== this.#drawnFoot) {
      this.#drawnFoot = now;
      this.#foot.replaceChildren(...this.#branches(at, of), this.#stats, ...this.#actions(answer, isLast));
    }
    this.#stats.textContent = this.node.role === "assistant" ? figures(this.node, answer) : "";
  }

  #branches(at, of) {
    if (of < 2) return [];
    const step = (name, label, by, possible) =>
      iconButton(name, label, () => this.chat.branch(this.node, by), { disabled: !possible });
    return [
      el(
        "span",
        { class: "branches" },
        step("left", "Previous version", -1, at > 1),
        el("span", { "aria-label": `Version ${at} of ${of}` }, `${at}/${of}`),
        step("right", "Next version", 1, at < of),
      ),
    ];
  }

  #actions(answer, isLast) {
    if (answer) return [];
    const { chat, node } = this;
    const label = node.content || !node.tool_calls ? "Copy the text" : "Copy the call";
    const copy = iconButton("copy", label, (event) => copyText(copied(node), event.currentTarget));
    const remove = iconButton("delete", "Delete this and what follows", () => chat.removeNode(node));
    if (node.role === "assistant") {
      const again = iconButton("again", "Another answer", () => chat.regenerate(node));
      const goOn = iconButton("continue", "Continue this answer", () => chat.goOn(node));
      return [copy, again, ...(isLast && node.content && !node.tool_calls ? [goOn] : []), remove];
    }
    const edit = iconButton("edit", "Edit and ask again", () => this.edit());
    const again = iconButton("again", "Ask for an answer", () => chat.answer(node));
    return [copy, edit, ...(isLast ? [again] : []), remove];
  }

  /** The text in a field: Enter makes a branch of it, Escape leaves everything as it is. */
  edit() {
    if (this.#editing) return;
    this.#editing = true;
    const field = el("textarea", { class: "edit-field", "aria-label": "Edit the message" });
    field.value = this.node.content;
    const close = () => {
      this.#editing = false;
      this.element.classList.remove("editing");
      this.#body.textContent = this.node.content;
    };
    const send = () => {
      const text = field.value;
      if (!text.trim()) return;
      close();
      this.chat.edit(this.node, text);
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") close();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    const cancel = el("button", { type: "button", class: "quiet", onclick: close }, "Cancel");
    const confirm = el("button", { type: "button", class: "solid", onclick: send }, "Send");
    this.element.classList.add("editing");
    this.#body.replaceChildren(field, el("div", { class: "edit-buttons" }, cancel, confirm));
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

/** The text to copy: the message's text, or its calls as JSON if it has none. */
function copied({ content, tool_calls: calls = [] }) {
  const named = calls.filter(Boolean).map(({ function: { name, arguments: text } }) => {
    try {
      return { name, arguments: JSON.parse(text) };
    } catch {
      return { name, arguments: text }; // the model has erred: its own words
    }
  });
  return content || JSON.stringify(named.length === 1 ? named[0] : named, null, 2);
}

/** Name and arguments of a tool call; the arguments as they are while they are not JSON yet. */
function callBox({ function: { name, arguments: text } }) {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // incomplete or broken JSON: shown as written
  }
  return el("div", { class: "call" }, el("div", { class: "call-name" }, name || "..."), el("pre", {}, shown));
}

/** One line of figures: how fast, how soon, how many. */
function figures({ stats = {}, finish, error, content }, answer) {
  const parts = [];
  const rate = answer ? answer.rate : stats.rate;
  if (rate) parts.push(`${stats.exact && !answer ? "" : "about "}${rate.toFixed(1)} tok/s`);
  if (!answer && stats.first_ms !== undefined) parts.push(`first token after ${(stats.first_ms / 1000).toFixed(2)} s`);
  if (!answer && stats.tokens !== undefined) parts.push(`${grouped(stats.tokens)} tokens`);
  if (!answer && stats.cached) parts.push(`${grouped(stats.cached)} of ${grouped(stats.prompt)} prompt tokens cached`);
  if (!answer && ENDS[finish]) parts.push(ENDS[finish]);
  if (!answer && !finish && !error) parts.push(`${content ? "not complete" : "no answer"}: the page was closed`);
  return parts.join(" · ");
}
