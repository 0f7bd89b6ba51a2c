// Export to a file, and import. A file is checked as a whole before any conversation is taken from it; an import gets
// new ids and never replaces anything. It does not know where conversations are kept.

import { el } from "./dom.js";
import { newConversation, newId, ROOT } from "./tree.js";

const FORMAT = "phi4mini-conversations";
const VERSION = 1;
const ROLES = ["user", "assistant", "tool"];
const MOST = 100 * 1024 * 1024; // bytes; more would not fit into memory beside everything else

/** Hands a file with these conversations to the browser. */
export function exportFile(conversations, title) {
  const kept = conversations.map(({ rev, deleted, ...rest }) => rest); // those two are this browser's own
  const content = { format: FORMAT, version: VERSION, exported: new Date().toISOString(), conversations: kept };
  const text = JSON.stringify(content, null, 1);
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const name = title.replace(/[^\p{L}\p{N} _-]+/gu, " ").trim().slice(0, 60) || "conversation";
  el("a", { href: address, download: `${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Conversations of a file, checked and with new ids. Rejects with an Error that says what is wrong. */
export async function importFile(file) {
  if (file.size > MOST) throw new Error(`it has ${file.size} bytes, the limit is ${MOST}`);
  let content;
  try {
    content = JSON.parse(await file.text());
  } catch {
    throw new Error("it is not JSON");
  }
  const { format, version, conversations } = content ?? {};
  if (format !== FORMAT || !Array.isArray(conversations)) throw new Error(`it is not a file of ${FORMAT}`);
  if (version !== VERSION) throw new Error(`it is of version ${version}, this page reads version ${VERSION}`);
  conversations.forEach((value, at) => {
    const fault = faultOf(value);
    if (fault) throw new Error(`conversation ${at + 1} ${fault}`);
  });
  return conversations.map(renewed);
}

/** What is wrong with a value that should be a conversation, or "" if it is one. */
function faultOf(value) {
  if (!isObject(value)) return "is not an object";
  if (typeof (value.title ?? "") !== "string") return "has a title that is no text";
  if (typeof (value.system ?? "") !== "string") return "has a system prompt that is no text";
  if (!isObject(value.nodes)) return "has no nodes";
  const nodes = Object.values(value.nodes);
  const known = new Set([ROOT, ...Object.keys(value.nodes)]);
  for (const [id, node] of Object.entries(value.nodes)) {
    if (!isObject(node) || id === ROOT || node.id !== id) return `has a node ${id} without its own id`;
    if (!ROLES.includes(node.role)) return `has a node of role ${JSON.stringify(node.role)}`;
    if (typeof node.content !== "string") return `has a node of role ${node.role} whose content is no text`;
    if (!known.has(node.parent)) return "has a node whose parent is missing";
    if (!validCalls(node.tool_calls ?? [])) return "has a tool call without id, name or arguments";
  }
  const reached = [ROOT];
  for (const id of reached) reached.push(...nodes.filter((node) => node.parent === id).map((node) => node.id));
  return reached.length === known.size ? "" : "has nodes that follow each other in a circle";
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value) => typeof value === "string";
const validCall = (call) => isText(call?.id) && isText(call.function?.name) && isText(call.function.arguments);
const validCalls = (calls) => Array.isArray(calls) && calls.every(validCall);
const only = (values, types) =>
  Object.fromEntries(Object.entries(values ?? {}).filter(([, value]) => types.includes(typeof value)));

/** A copy with ids of its own and only the fields we know, so that an import never replaces what is here. */
function renewed({ title = "", system = "", params, nodes, chosen, created, updated }) {
  const copy = newConversation({ system, params: only(params, ["number", "string"]) });
  const ids = new Map([[ROOT, ROOT]]);
  for (const id of Object.keys(nodes)) ids.set(id, newId());
  for (const node of Object.values(nodes)) {
    const fresh = { ...renewedFields(node), id: ids.get(node.id), parent: ids.get(node.parent) };
    copy.nodes[fresh.id] = fresh;
    copy.chosen[fresh.parent] = fresh.id; // the newest branch, where none is named
  }
  for (const [parent, child] of Object.entries(chosen ?? {})) {
    const named = copy.nodes[ids.get(child)];
    if (named && ids.has(parent) && named.parent === ids.get(parent)) copy.chosen[named.parent] = named.id;
  }
  return { ...copy, title, created: Number(created) || copy.created, updated: Number(updated) || copy.updated };
}

function renewedFields({ role, content, created, tool_calls, tool_call_id, finish, error, stats }) {
  const fields = { role, content, created: Number(created) || Date.now() };
  if (tool_calls) fields.tool_calls = tool_calls;
  if (isText(tool_call_id)) fields.tool_call_id = tool_call_id;
  if (isText(finish)) fields.finish = finish;
  if (isText(error?.message)) fields.error = { message: error.message, status: 0 };
  if (stats) fields.stats = only(stats, ["number", "boolean"]);
  return fields;
}
