// Puts the page together: the store, the state, and everything that shows it. Each part is explained in its own file.

import { onKeyNeeded } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { byId } from "./dom.js";
import { ask } from "./keydialog.js";
import { installKeys } from "./keys.js";
import { Meter } from "./meter.js";
import { announce, say, trouble } from "./notice.js";
import { keptDefaults, Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { Thread } from "./thread.js";

const store = new Store(trouble, (id) => chat.takeOver(id));
const chat = new Chat(store, say, keptDefaults);
const thread = new Thread(chat);
const meter = new Meter(chat);
const sidebar = new Sidebar(chat, say);
const settings = new Settings(chat, say);
const composer = new Composer(chat, {
  onSend: () => thread.follow(),
  onEditLast: () => thread.editLast(),
  onDraft: (text) => meter.setDraft(text),
});
const connection = new Connection((props) => {
  byId("model").textContent = props.model ?? props.model_alias ?? "";
  meter.setContext(props.n_ctx ?? props.default_generation_settings?.n_ctx ?? 0);
});

chat.addEventListener("ended", ({ detail }) => {
  announce(spoken(detail.node));
  if (detail.unreachable) connection.look();
  navigator.storage?.persist?.().catch(() => {}); // asks that the browser does not throw conversations away by itself
});

function spoken({ content, error, finish }) {
  if (error) return `Error: ${error.message}`;
  return finish === "stopped" ? "The answer was stopped." : `The answer is complete: ${content.slice(0, 300)}`;
}

installKeys({
  stop: () => chat.stop(),
  fresh: () => sidebar.fresh(),
  toggleList: () => sidebar.toggle(),
  settings: () => settings.open(),
  focus: () => composer.field.focus(),
});
byId("theme").addEventListener("click", () => announce(nameTheme(window.theme.next())));
nameTheme(window.theme.choice);

function nameTheme(choice) {
  const label = { auto: "Colours as the system prefers", light: "Light colours", dark: "Dark colours" }[choice];
  byId("theme").title = label;
  byId("theme").setAttribute("aria-label", label);
  return label;
}

onKeyNeeded(ask);
await store.open();
await chat.load();
byId("app").removeAttribute("aria-busy");
composer.field.focus({ preventScroll: true });
await connection.start();
