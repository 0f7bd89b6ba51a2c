// Asks for the API key when the server wants one. It does not know requests: api.js calls `ask` and sends again.

import { useKey } from "./api.js";
import { byId } from "./dom.js";
import { say } from "./notice.js";

/** Shows the dialog with what the server said; resolves to whether a key was given. */
export function ask(message) {
  const dialog = byId("key-dialog");
  const field = byId("key");
  byId("key-message").textContent = message;
  field.value = "";
  dialog.returnValue = "";
  byId("cancel-key").onclick = () => dialog.close("");
  dialog.showModal();
  return new Promise((resolve) => {
    const closed = () => {
      const given = dialog.returnValue === "use" && field.value !== "";
      const remember = byId("remember-key").checked;
      const kept = given && useKey(field.value.trim(), remember);
      if (given && remember && !kept) say("This browser does not keep the key; it is asked for again next time.");
      field.value = ""; // it stays in no element
      resolve(given);
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}
