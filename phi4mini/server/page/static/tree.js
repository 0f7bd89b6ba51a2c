// A conversation as a tree: every edit and every new answer is a branch, and `chosen` says which one is shown.
// Plain data and functions on it, ready to be stored as they are. It does not know the page, the server or the store.
//
// conversation: {id, title, created, updated, rev, system, params, nodes: {id: node}, chosen: {parent id: child id}}
// node: {id, parent ("" for the first), role, content, created, and for answers: tool_calls, finish, error, stats}

export const ROOT = "";

export const newId = () => `n${Date.now().toString(36)}${crypto.getRandomValues(new Uint32Array(2)).join("")}`;

/** An empty conversation with these settings. */
export function newConversation({ system = "", params = {} } = {}) {
  const now = Date.now();
  const record = { id: newId(), title: "", created: now, updated: now, rev: 0 };
  return { ...record, system, params: { ...params }, nodes: {}, chosen: {} };
}

/** Adds a node under `parent` and shows it. */
export function addNode(conversation, parent, role, fields = {}) {
  const node = { id: newId(), parent, role, content: "", created: Date.now(), ...fields };
  conversation.nodes[node.id] = node;
  conversation.chosen[parent] = node.id;
  conversation.updated = node.created;
  return node;
}

/** All nodes that continue `parent`, oldest first. */
export function childrenOf(conversation, parent) {
  return Object.values(conversation.nodes).filter((node) => node.parent === parent);
}

/** The nodes that are shown, first to last. */
export function shownPath(conversation) {
  const path = [];
  const { chosen, nodes } = conversation;
  for (let id = chosen[ROOT]; id !== undefined; id = chosen[id]) path.push(nodes[id]);
  return path;
}

/** The nodes from the first one to `node`, whichever branches are shown. */
export function pathTo(conversation, node) {
  const path = [];
  for (let at = node; at; at = conversation.nodes[at.parent]) path.unshift(at);
  return path;
}

/** Shows another branch: the node `steps` away among those with the same parent. */
export function chooseSibling(conversation, node, steps) {
  const all = childrenOf(conversation, node.parent);
  const other = all[all.indexOf(node) + steps];
  if (other) conversation.chosen[node.parent] = other.id;
  return other;
}

/** Removes a node and all that follows it; shows the branch beside it. Returns a function that puts everything back. */
export function removeNode(conversation, node) {
  const before = { nodes: { ...conversation.nodes }, chosen: { ...conversation.chosen } };
  const all = childrenOf(conversation, node.parent);
  const at = all.indexOf(node);
  const doomed = [node.id];
  for (const id of doomed) doomed.push(...childrenOf(conversation, id).map((child) => child.id));
  for (const id of doomed) {
    delete conversation.nodes[id];
    delete conversation.chosen[id];
  }
  const beside = all[at - 1] ?? all[at + 1];
  if (beside) conversation.chosen[node.parent] = beside.id;
  else delete conversation.chosen[node.parent];
  return () => {
    conversation.nodes = { ...before.nodes, ...conversation.nodes }; // in their first order
    conversation.chosen = { ...conversation.chosen, ...before.chosen };
  };
}

/** Calls of the last shown answer that have no result yet. */
export function openCalls(conversation) {
  const path = shownPath(conversation);
  const asked = path.findLastIndex((node) => node.role !== "tool");
  const calls = path[asked]?.tool_calls ?? [];
  const answered = new Set(path.slice(asked + 1).map((node) => node.tool_call_id));
  return calls.filter((call) => !answered.has(call.id));
}

/** OpenAI's `messages` for the path to `node`, that included; an answer without any text is left out. */
export function requestMessages(conversation, node) {
  const messages = conversation.system.trim() ? [{ role: "system", content: conversation.system }] : [];
  for (const { role, content, tool_calls, tool_call_id } of pathTo(conversation, node)) {
    if (role === "tool") messages.push({ role, content, tool_call_id });
    else if (tool_calls?.length) messages.push({ role, content: content || null, tool_calls });
    else if (role === "user" || content) messages.push({ role, content });
  }
  return messages;
}

/** A title from the first thing that was asked. */
export function titleOf(conversation) {
  const first = shownPath(conversation).find((node) => node.role === "user");
  const line = first?.content.trim().split("\n")[0] ?? "";
  return conversation.title || (line.length > 60 ? `${line.slice(0, 57)}...` : line) || "New conversation";
}
