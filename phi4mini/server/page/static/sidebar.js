// The list of conversations: choose, search, rename, delete, export and import. On a narrow page it is a drawer.

import { byId, el, iconButton } from "./dom.js";
import { titleOf } from "./tree.js";
import { exportFile, importFile } from "./transfer.js";

const narrow = matchMedia("(max-width: 52rem)");

export class Sidebar {
  #element = byId("sidebar");
  #list = byId("conversations");
  #search = byId("search");
  #renaming = null;

  constructor(chat, say) {
    Object.assign(this, { chat, say });
    chat.addEventListener("list", () => this.#draw());
    this.#search.addEventListener("input", () => this.#draw());
    byId("new").addEventListener("click", () => this.fresh());
    byId("menu").addEventListener("click", () => this.toggle());
    byId("scrim").addEventListener("click", () => this.close());
    byId("export-all").addEventListener("click", () => this.#exportAll());
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", (event) => this.#import(event.target));
    narrow.addEventListener("change", () => this.close());
    this.close();
  }

  /** An empty conversation, ready to be written in. */
  fresh() {
    this.chat.open();
    this.close();
    byId("draft").focus();
  }

  get isOpen() {
    return document.body.classList.contains("drawer-open");
  }

  toggle() {
    if (narrow.matches) this.#setOpen(!this.isOpen);
    else document.body.classList.toggle("list-hidden");
  }

  close() {
    this.#setOpen(false);
  }

  #setOpen(open) {
    document.body.classList.toggle("drawer-open", open);
    this.#element.inert = narrow.matches && !open; // what is out of sight cannot be reached by Tab
    byId("scrim").hidden = !open;
    byId("menu").setAttribute("aria-expanded", String(open || !narrow.matches));
    if (open) byId("new").focus(); // not the search: a touch keyboard would cover the list
  }

  #draw() {
    if (this.#renaming) return;
    const found = this.chat.list(this.#search.value);
    const nothing = this.#search.value ? "Nothing found." : "Conversations are listed here. They stay in this browser.";
    this.#list.replaceChildren(...found.map((conversation) => this.#entry(conversation)));
    byId("no-conversations").textContent = found.length ? "" : nothing;
    byId("title").textContent = titleOf(this.chat.current);
    document.title = `${titleOf(this.chat.current)} · phi4mini`;
  }

  #entry(conversation) {
    const isCurrent = conversation === this.chat.current;
    const open = () => {
      this.chat.open(conversation.id);
      this.close();
    };
    const current = isCurrent ? "page" : null;
    const properties = { type: "button", class: "entry-title", onclick: open, "aria-current": current };
    const title = el("button", properties, titleOf(conversation));
    const dot = el("span", { class: "writing-dot", title: "An answer is being written" });
    const writing = this.chat.writing(conversation);
    const item = el("li", { class: isCurrent ? "entry current" : "entry" }, title, writing && dot);
    item.append(
      iconButton("edit", "Rename", () => this.#rename(item, conversation)),
      iconButton("export", "Export", () => exportFile([conversation], titleOf(conversation))),
      iconButton("delete", "Delete", () => this.chat.remove(conversation)),
    );
    return item;
  }

  #rename(item, conversation) {
    const field = el("input", { class: "entry-field", "aria-label": "Title", maxlength: 120 });
    field.value = titleOf(conversation);
    this.#renaming = conversation;
    const done = (keep) => {
      if (this.#renaming !== conversation) return;
      this.#renaming = null;
      if (keep) this.chat.rename(conversation, field.value);
      else this.#draw();
    };
    field.addEventListener("blur", () => done(true));
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") done(true);
      if (event.key === "Escape") done(false);
    });
    item.replaceChildren(field);
    field.select();
  }

  #exportAll() {
    const all = this.chat.list();
    if (all.length) exportFile(all, "conversations");
    else this.say("There is no conversation to export.");
  }

  async #import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      const conversations = await importFile(file);
      this.chat.add(conversations);
      this.say(`${conversations.length} imported from ${file.name}.`);
    } catch (error) {
      this.say(`${file.name} was not imported: ${error.message}`, { stays: true });
    }
  }
}
