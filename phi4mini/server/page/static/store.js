// Conversations in the browser's IndexedDB, one record each. It does not know what a conversation means.
// Promises: a failed write is told to `onTrouble`, never swallowed; a record that another tab has changed meanwhile is
// not overwritten (Changed is thrown). Without IndexedDB the page works, and says that nothing is kept.
// All conversations are in memory while the page is open; there is no paging.

const NAME = "phi4mini";
const TABLE = "conversations";

/** Another tab has written this record since it was read. */
export class Changed extends Error {}

const asPromise = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

function committed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser gave up writing"));
  });
}

export class Store {
  #database = null;
  #waiting = Promise.resolve(); // writes go one after the other, so that `rev` counts them
  #channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(NAME);

  /** onTrouble(message): a write has failed. onElsewhere(id): another tab has written or removed this record. */
  constructor(onTrouble, onElsewhere) {
    this.onTrouble = onTrouble;
    if (this.#channel) this.#channel.onmessage = ({ data }) => onElsewhere(data.id);
  }

  async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
      this.#database = await asPromise(request);
      this.#database.onclose = () => {
        this.#database = null;
        this.onTrouble("The browser has closed its storage: nothing is kept from now on. Export what you need.");
      };
    } catch (error) {
      const lost = "conversations are gone when the page is closed. Export what you need.";
      this.onTrouble(`This browser keeps nothing (${error.message}): ${lost}`);
    }
  }

  /** All records. */
  async all() {
    if (!this.#database) return [];
    return asPromise(this.#database.transaction(TABLE).objectStore(TABLE).getAll());
  }

  /** One record, or undefined. */
  async get(id) {
    if (!this.#database) return undefined;
    return asPromise(this.#database.transaction(TABLE).objectStore(TABLE).get(id));
  }

  /** Writes a record as it is when its turn comes, and counts its `rev` up. Rejects with Changed only. */
  save(record) {
    const done = this.#waiting.then(() => this.#write(record));
    this.#waiting = done.catch(() => {});
    return done;
  }

  /** Removes a record. */
  remove(id) {
    const done = this.#waiting.then(async () => {
      if (!this.#database) return;
      const transaction = this.#database.transaction(TABLE, "readwrite");
      transaction.objectStore(TABLE).delete(id);
      await committed(transaction);
      this.#channel?.postMessage({ id });
    });
    this.#waiting = done.catch((error) => this.onTrouble(`A conversation could not be removed: ${error.message}`));
    return this.#waiting;
  }

  async #write(record) {
    if (!this.#database) return;
    try {
      const transaction = this.#database.transaction(TABLE, "readwrite", { durability: "strict" });
      const table = transaction.objectStore(TABLE);
      const kept = await asPromise(table.get(record.id));
      if ((kept?.rev ?? 0) !== record.rev) throw new Changed("another tab has changed this conversation");
      table.put({ ...record, rev: record.rev + 1 });
      await committed(transaction);
      record.rev += 1;
      this.#channel?.postMessage({ id: record.id });
    } catch (error) {
      if (error instanceof Changed) throw error;
      const reason = error.name === "QuotaExceededError" ? "the browser's storage is full" : error.message;
      const advice = "It is still on the page; export it, or delete others.";
      this.onTrouble(`This conversation could not be kept: ${reason}. ${advice}`);
    }
  }
}
