// Keys that work everywhere on the page, and the list of all of them. A key pressed in a field belongs to the field,
// but for those with Ctrl or Cmd and Escape.

import { byId, el } from "./dom.js";

const command = /Mac|iPhone|iPad/.test(navigator.platform) ? "Cmd" : "Ctrl";
const LIST = [
  ["Enter", "send"],
  ["Shift+Enter", "new line"],
  ["Esc", "stop the answer"],
  ["Up", "in an empty field: edit what was said last"],
  ["/", "go to the field"],
  [`${command}+K`, "new conversation"],
  [`${command}+B`, "show or hide the list"],
  [`${command}+,`, "settings of this conversation"],
  ["?", "this list"],
];

function row([key, meaning]) {
  const parts = key.split("+").map((part) => el("kbd", {}, part));
  return el("div", {}, el("dt", {}, ...parts), el("dd", {}, meaning));
}

/** Makes the keys work; `actions` are what they do. */
export function installKeys({ stop, fresh, toggleList, settings, focus }) {
  const help = byId("help");
  byId("keys").replaceChildren(...LIST.map(row));
  byId("open-help").addEventListener("click", () => help.showModal());
  help.addEventListener("click", (event) => event.target === help && help.close());

  const commands = { k: fresh, b: toggleList, ",": settings };
  const plain = { "/": focus, "?": () => help.showModal() };
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return; // a dialog has its own keys
    const inField = event.target.closest("input, textarea");
    const withCommand = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
    let action = null;
    if (event.key === "Escape") action = stop;
    else if (withCommand) action = commands[event.key.toLowerCase()];
    else if (!inField && !event.ctrlKey && !event.metaKey && !event.altKey) action = plain[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
