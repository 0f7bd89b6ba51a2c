// The panel of one conversation: system prompt, sampling, structure, tools. What is wrong is said at its field and is
// not taken over; the rest is. It does not know what the server makes of the values.

import { byId, el } from "./dom.js";
import { FIELDS, jsonFault, numberFault } from "./parameters.js";

const DEFAULTS = "phi4mini.defaults";
const SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}';
const TOOLS = `[{"type": "function", "function": {"name": "get_weather", "parameters": ${SCHEMA}}}]`;
const LISTED = "a JSON list of functions; you give the results";
const TEXTS = [
  { name: "stop", label: "Stop at", hint: "one text a line; \\n is a line end", rows: 2 },
  { name: "schema", label: "JSON schema", hint: "the answer is JSON of this form", kind: "object", example: SCHEMA },
  { name: "tools", label: "Tools", hint: LISTED, kind: "list", example: TOOLS },
];

/** Settings of a new conversation, as the user has kept them. */
export function keptDefaults() {
  try {
    const { system = "", params = {} } = JSON.parse(localStorage.getItem(DEFAULTS) ?? "{}");
    return { system: String(system), params };
  } catch {
    return {};
  }
}

export class Settings {
  #dialog = byId("settings");
  #system = byId("system");
  #fields = new Map(); // name -> {field, fault, check}

  constructor(chat, say) {
    Object.assign(this, { chat, say });
    for (const field of FIELDS) this.#addNumber(field);
    for (const field of TEXTS) this.#addText(field);
    this.#system.addEventListener("input", () => this.#take());
    byId("open-settings").addEventListener("click", () => this.open());
    byId("keep-defaults").addEventListener("click", () => this.#keepDefaults());
    byId("reset-settings").addEventListener("click", () => this.#reset());
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
    chat.addEventListener("path", () => this.#mark());
  }

  open() {
    this.#show(this.chat.current);
    this.#dialog.showModal();
  }

  #addNumber(spec) {
    const { name, label, hint, step } = spec;
    const inputmode = step === 1 ? "numeric" : "decimal";
    const field = el("input", { id: `p-${name}`, inputmode, autocomplete: "off", placeholder: "default" });
    this.#add(byId("numbers"), name, label, hint, field, (text) => numberFault(spec, text));
  }

  #addText({ name, label, hint, kind, example, rows = 5 }) {
    const shown = { rows, spellcheck: "false", class: "code-field", placeholder: example };
    const field = el("textarea", { id: `p-${name}`, ...shown });
    this.#add(byId("texts"), name, label, hint, field, (text) => (kind ? jsonFault(text, kind) : ""));
  }

  #add(parent, name, label, hint, field, check) {
    const fault = el("span", { class: "field-fault", id: `f-${name}`, role: "alert" });
    field.setAttribute("aria-describedby", `f-${name} h-${name}`);
    field.addEventListener("input", () => this.#take());
    this.#fields.set(name, { field, fault, check });
    const note = el("span", { class: "hint", id: `h-${name}` }, hint);
    parent.append(el("div", { class: "field" }, el("label", { for: `p-${name}` }, label), field, note, fault));
  }

  #show({ system, params }) {
    this.#system.value = system;
    for (const [name, { field, fault }] of this.#fields) {
      field.value = params[name] ?? "";
      fault.textContent = "";
      field.removeAttribute("aria-invalid");
    }
  }

  /** Takes over what is right; a field with a fault keeps the value it had. */
  #take() {
    const params = { ...this.chat.current.params };
    for (const [name, { field, fault, check }] of this.#fields) {
      const text = field.value;
      fault.textContent = check(text);
      field.setAttribute("aria-invalid", String(Boolean(fault.textContent)));
      if (fault.textContent) continue;
      if (text.trim() === "") delete params[name];
      else params[name] = field.tagName === "INPUT" ? Number(text) : text;
    }
    this.chat.setUp({ system: this.#system.value, params });
    this.#mark();
  }

  #reset() {
    this.chat.setUp({ system: "", params: {} });
    this.#show(this.chat.current);
    this.#mark();
  }

  #keepDefaults() {
    const { system, params } = this.chat.current;
    try {
      localStorage.setItem(DEFAULTS, JSON.stringify({ system, params }));
      this.say("New conversations begin with these settings.");
    } catch {
      this.say("This browser does not keep settings.");
    }
  }

  /** Shows on the button that this conversation is not as the server has it. */
  #mark() {
    const { system, params } = this.chat.current;
    byId("open-settings").classList.toggle("marked", system.trim() !== "" || Object.keys(params).length > 0);
  }
}
