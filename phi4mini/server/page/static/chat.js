// The state of the page: its conversations, the commands that change them, and events for the views. It draws nothing.
// Events: "list" (conversations), "path" (what is shown), "node" (detail: the changed node), "ended" (detail:
// an Answer).
// Promise: every change is stored; if another tab has changed the conversation too, both versions are kept.

import { Answer } from "./answer.js";
import { Changed } from "./store.js";
import { addNode, childrenOf, chooseSibling, newConversation } from "./tree.js";
import { openCalls, removeNode, shownPath, titleOf } from "./tree.js";

const SAVE_EVERY = 1000; // ms while an answer is being written
const UNDO_TIME = 60_000; // ms after which a removed conversation is gone for good

export class Chat extends EventTarget {
  conversations = new Map();
  current = newConversation();
  answers = new Map(); // node id -> Answer being written

  /** say(message, {action, label}): tells the user. */
  constructor(store, say, defaults) {
    super();
    Object.assign(this, { store, say, defaults });
  }

  async load() {
    for (const record of await this.store.all()) {
      if (record.deleted && Date.now() - record.deleted > UNDO_TIME) this.store.remove(record.id);
      else this.conversations.set(record.id, record);
    }
    this.open();
  }

  /** Conversations to list, the latest first; with `query`, those that contain it. */
  list(query = "") {
    const wanted = query.trim().toLowerCase();
    const texts = (c) => [titleOf(c), c.system, ...Object.values(c.nodes).map((node) => node.content)];
    return [...this.conversations.values()]
      .filter((c) => !c.deleted && (!wanted || texts(c).some((text) => text.toLowerCase().includes(wanted))))
      .sort((a, b) => b.updated - a.updated);
  }

  /** Shows a conversation; without an id an empty one, which is listed once something is said in it. */
  open(id) {
    this.current = this.conversations.get(id) ?? newConversation(this.defaults());
    this.#tell("path");
    this.#tell("list");
  }

  /** The answer being written in the conversation that is shown. */
  get running() {
    return [...this.answers.values()].find((answer) => answer.conversation === this.current);
  }

  writing(conversation) {
    return [...this.answers.values()].some((answer) => answer.conversation === conversation);
  }

  // --- saying things ------------------------------------------------------------------------------------------------

  /** Adds `text` after the last shown message: as a question, or as the result of a call that waits for one. */
  send(text) {
    const parent = shownPath(this.current).at(-1)?.id ?? "";
    const [call] = openCalls(this.current);
    const role = call ? "tool" : "user";
    const node = addNode(this.current, parent, role, { content: text, ...(call ? { tool_call_id: call.id } : {}) });
    if (openCalls(this.current).length === 0) this.answer(node);
    else this.#changed();
  }

  /** A new answer to a node, beside earlier ones. */
  answer(node) {
    const added = addNode(this.current, node.id, "assistant");
    this.#run(added, false);
  }

  /** Edits a message: a new branch, and an answer to it. */
  edit(node, text) {
    const { role, tool_call_id } = node;
    this.answer(addNode(this.current, node.parent, role, { content: text, ...(tool_call_id ? { tool_call_id } : {}) }));
  }

  /** Another answer to the same message; tells the user where it would be the same again. */
  regenerate(node) {
    const { temperature = 0, seed } = this.current.params;
    const fixed = "every answer to the same is the same; the settings change it.";
    if (temperature === 0) this.say(`At temperature 0 ${fixed}`);
    else if (seed !== undefined) this.say(`With a fixed seed ${fixed}`);
    this.answer(this.current.nodes[node.parent]);
  }

  /** Continues an answer where it ended. */
  goOn(node) {
    this.#run(node, node.content !== "");
  }

  stop() {
    this.running?.stop();
  }

  async #run(node, goOn) {
    const conversation = this.current;
    const answer = new Answer(conversation, node, () => this.#tell("node", node));
    this.answers.set(node.id, answer);
    this.#changed();
    const saving = setInterval(() => this.keep(conversation), SAVE_EVERY);
    await answer.run(goOn);
    clearInterval(saving);
    this.answers.delete(node.id);
    conversation.updated = Date.now();
    await this.keep(conversation);
    this.#tell("ended", answer);
    this.#tell("list");
  }

  // --- changing the tree --------------------------------------------------------------------------------------------

  branch(node, steps) {
    if (chooseSibling(this.current, node, steps)) this.#changed();
  }

  branches(node) {
    const all = childrenOf(this.current, node.parent);
    return { at: all.indexOf(node) + 1, of: all.length };
  }

  removeNode(node) {
    const conversation = this.current;
    if (this.writing(conversation)) this.stop();
    const undo = removeNode(conversation, node);
    this.#changed();
    this.say("The message and what follows it is deleted.", {
      label: "Undo",
      action: () => {
        undo();
        this.keep(conversation);
        if (this.current === conversation) this.#tell("path");
      },
    });
  }

  // --- changing conversations ---------------------------------------------------------------------------------------

  rename(conversation, title) {
    conversation.title = title.trim();
    this.keep(conversation);
    this.#tell("list");
  }

  /** System prompt and parameters of the conversation that is shown. */
  setUp({ system, params }) {
    Object.assign(this.current, { system, params });
    if (Object.keys(this.current.nodes).length) this.keep(this.current);
  }

  remove(conversation) {
    for (const answer of this.answers.values()) if (answer.conversation === conversation) answer.stop();
    conversation.deleted = Date.now();
    this.keep(conversation);
    if (this.current === conversation) this.open();
    else this.#tell("list");
    setTimeout(() => this.#forget(conversation), UNDO_TIME);
    this.say(`"${titleOf(conversation)}" is deleted.`, {
      label: "Undo",
      action: () => {
        delete conversation.deleted;
        this.keep(conversation);
        this.open(conversation.id);
      },
    });
  }

  #forget(conversation) {
    if (!conversation.deleted || this.conversations.get(conversation.id) !== conversation) return;
    this.conversations.delete(conversation.id);
    this.store.remove(conversation.id);
  }

  /** Takes in conversations that were checked and renewed. */
  add(conversations) {
    for (const conversation of conversations) {
      this.conversations.set(conversation.id, conversation);
      this.keep(conversation);
    }
    if (conversations.length) this.open(conversations[0].id);
  }

  // --- keeping ------------------------------------------------------------------------------------------------------

  /** Stores a conversation as it is. */
  async keep(conversation) {
    try {
      await this.store.save(conversation);
    } catch (error) {
      if (!(error instanceof Changed)) throw error;
      this.#keepBeside(conversation);
    }
  }

  #keepBeside(conversation) {
    if (conversation.deleted) return; // what another tab wrote stays
    const { id } = conversation;
    const title = `${titleOf(conversation)} (this tab)`;
    Object.assign(conversation, { id: newConversation().id, rev: 0, title });
    this.conversations.delete(id);
    this.conversations.set(conversation.id, conversation);
    this.keep(conversation);
    this.takeOver(id);
    this.say("Another tab has changed this conversation; what was written here is kept beside it.");
    this.#tell("list");
  }

  /** Another tab has written a conversation: shows it as it is there. */
  async takeOver(id) {
    const ours = this.conversations.get(id);
    if (ours && this.writing(ours)) return; // the next save finds the difference and keeps both
    const theirs = await this.store.get(id);
    if (theirs && ours && theirs.rev <= ours.rev) return;
    if (theirs) this.conversations.set(id, theirs);
    else this.conversations.delete(id);
    if (this.current === ours && ours) {
      this.current = theirs && !theirs.deleted ? theirs : newConversation(this.defaults());
      this.#tell("path");
    }
    this.#tell("list");
  }

  #changed() {
    this.conversations.set(this.current.id, this.current);
    this.keep(this.current);
    this.#tell("path");
    this.#tell("list");
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
