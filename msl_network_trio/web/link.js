/** A link of the client with a Service: its handlers, its gaps and its lock. All times are in seconds. */

const now = () => Date.now() / 1000;

/**
 * The state of a link. After a loss, `restore` marks the gap between the notifications of before and after. It has
 * to be called when the answer to `link` is read, since notifications may follow at once.
 */
export class LinkState {
  lockLost = null; // why the lock was lost, until it is released or acquired again
  isLocked = false;
  isAsking = false; // a request for the link is open
  hasCome = false; // the Service has come since the last of these requests
  attempts = 0; // since the loss
  timer = null; // of the next request for the link
  #handlers = new Set();
  #gapHandlers = new Set();
  #sure = now(); // the last proof that nothing was missed
  #since = null; // this proof at the time of the loss
  #reason = "";
  #gap = null; // for the next notification

  /** `own` has the methods of the link that send requests. */
  constructor(service, idempotent, own) {
    this.service = service;
    this.idempotent = new Set(idempotent);
    const add = (handlers) => (handler) => handlers.add(handler) && (() => handlers.delete(handler));
    this.facade = {
      service,
      address: null, // the address of the Service; null while it is not connected
      ...own,
      onNotification: add(this.#handlers), // these two return a function that removes the handler
      onGap: add(this.#gapHandlers),
    };
    const isOurs = (name) => typeof name === "symbol" || name in this.facade || /^_|^then$|^toJSON$/.test(name);
    const get = (_, name) => (isOurs(name) ? this.facade[name] : (...args) => this.facade.request(name, args));
    this.proxy = new Proxy(this.facade, { get });
  }

  get isAway() {
    return this.facade.address === null;
  }

  /** Whether the Service is to be observed, since somebody would not notice its loss otherwise. */
  get isFollowed() {
    return this.#handlers.size + this.#gapHandlers.size > 0 || this.isLocked;
  }

  notify(args, kwargs) {
    const gap = this.#gap;
    [this.#gap, this.#sure] = [null, now()];
    call(this.#handlers, { service: this.service, args, kwargs, gap });
  }

  lose(reason) {
    if (this.isAway) return;
    this.facade.address = null;
    [this.#since, this.#reason, this.attempts] = [this.#sure, reason, 0];
    if (this.isLocked) [this.isLocked, this.lockLost] = [false, reason];
  }

  restore(identity) {
    Object.assign(this.facade, { identity, address: identity.address });
    this.#sure = now();
    if (this.#since === null) return;
    const gap = { service: this.service, since: this.#since, until: this.#sure, reason: this.#reason };
    this.#since = null;
    if (this.#handlers.size) this.#gap = { ...gap, since: this.#gap?.since ?? gap.since };
    call(this.#gapHandlers, gap);
  }
}

/** Call handlers after the current line has been handled; what they raise stops nothing. */
function call(handlers, value) {
  for (const handler of handlers) Promise.resolve(value).then(handler).catch(console.error);
}
