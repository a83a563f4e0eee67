/**
 * A client of an MSL-Network Manager for web pages, over WebSocket. All times are in seconds.
 *   const client = await connect("wss://lab-3:8875/msl", { name: "Dashboard" });
 *   const math = await client.link("BasicMath");
 *   await math.add(1, 2);
 *   await math.request("add", [1], { y: 2 }, { timeout: 5 }); // keyword arguments and a timeout
 *   math.onNotification(({ args, kwargs }) => console.log(args, kwargs));
 */
import { ConnectError, ConnectionLost, AuthenticationError, LockLost, ManagerError, NetworkError } from "./errors.js";
import { RemoteError, ReplyTimeout, ServiceLost, delay, isFinal, isRefusal, lossOf } from "./errors.js";
import { parse, stringify } from "./exact-json.js";
import { LinkState } from "./link.js";
import { Presence } from "./presence.js";

export * from "./errors.js";

const MANAGER = "Manager";
const ANSWERED_WITH_UID = new Set(["identity", "link", "unlink", "acquire_lock", "release_lock"]);
const ONE_TRY = 5; // seconds
const random = () => [...crypto.getRandomValues(new Uint32Array(3))].map((n) => n.toString(36)).join("");
const after = (seconds, callback) => (seconds ? setTimeout(callback, Math.min(seconds * 1000, 2 ** 31 - 1)) : null);
const ignore = () => {};
const since = (time) => Math.max(0, Date.now() / 1000 - time);
const HEARTBEAT = {}; // the options of periodic identity requests
const NOBODY = `nobody is called ${random()}`;
const BARRIER = { attribute: "unlink", args: [NOBODY], timeout: 0, isOwn: true, isBarrier: true }; // changes nothing

/**
 * A client that reconnects and relinks after its connection was lost. Its events: "state" (see `state`, `error`,
 * `retryIn`), and "identity" after each reply to an identity request, with the connected peers as its `detail`.
 * A Manager reads a client's lines in order, and answers its own requests before it reads on; this order attributes
 * replies without a uid. After an admin request, nothing may be sent until its reply.
 */
export class Client extends EventTarget {
  state = "closed"; // "connecting", "connected", "lost" (until the next attempt), "reconnecting"
  manager = ""; // "Manager[HOST:port]", as the Manager calls itself
  name = ""; // "name[HOST:port]", as the Manager calls this client
  retry = ignore; // reconnect at once, instead of after `retryIn`
  #presence = new Presence({
    start: (request) => this.#start(request),
    fail: (...failure) => this.#fail(...failure),
    flush: () => this.#flush(),
  });
  #links = this.#presence.links;
  #waiting = new Set(); // requests that wait for the connection or for their link
  #epoch = 0; // the number of calls of `open` and `close`
  #since = 0; // the time of the loss, or of `open`
  #wire; // the state of one WebSocket

  constructor(url, options) {
    super();
    this.url = String(url);
    const defaults = { name: "Browser", timeout: 10, requestTimeout: 0, heartbeat: 10, reconnect: true };
    this.options = { ...defaults, whileAway: "wait", giveUpAfter: 0, ...options };
  }

  async open() {
    const epoch = (this.#epoch += 1);
    this.#change("connecting");
    this.#since = Date.now() / 1000;
    const { timeout, giveUpAfter } = this.options;
    const error = await this.#connect(null, timeout || giveUpAfter);
    if (!error) return this;
    if (epoch === this.#epoch) this.#change("closed", error);
    throw error;
  }

  close() {
    this.#epoch += 1;
    this.#change("closed");
    this.retry();
    this.#presence.close();
    if (this.#wire) this.#end(this.#wire, ConnectError, "closed by this client");
  }

  /** Request the connected peers from the Manager, and relink with Services that have restarted. */
  identity(options) {
    const onAnswer = (identity, request) => {
      this.#presence.seen(identity, request);
      this.dispatchEvent(new CustomEvent("identity", { detail: identity }));
    };
    return this.#start({ attribute: "identity", timeout: options?.timeout, onAnswer, isOwn: options === HEARTBEAT });
  }

  /** Link with a Service. Calls of the methods in `idempotent` are sent again if they may not have been executed. */
  async link(service, { timeout, idempotent } = {}) {
    const onAnswer = (identity, request) => {
      const link = this.#links.get(service) ?? new LinkState(service, idempotent, this.#methods(service));
      this.#links.set(service, link);
      this.#presence.linked(link, identity, request);
    };
    await this.#start({ attribute: "link", args: [String(service)], timeout, onAnswer });
    return this.#links.get(service)?.proxy;
  }

  async unlink(service, { timeout } = {}) {
    this.#presence.forget(service);
    this.#flush();
    if (this.#isUp || this.state === "closed") return this.#start({ attribute: "unlink", args: [service], timeout });
  }

  async request(service, attribute, args = [], kwargs = {}, { timeout, idempotent } = {}) {
    [service, attribute] = [String(service), String(attribute)];
    if (attribute === "__disconnect__") throw new TypeError("Use close() to end the connection");
    const isIdempotent = idempotent ?? this.#links.get(service)?.idempotent.has(attribute) ?? false;
    return this.#start({ service, attribute, args, kwargs, timeout, isIdempotent });
  }

  #methods(service) {
    const onAnswer = (isLocked) => () => Object.assign(this.#links.get(service) ?? {}, { isLocked, lockLost: null });
    const lock = { attribute: "acquire_lock", args: [service], onAnswer: onAnswer(true) };
    const release = { attribute: "release_lock", args: [service], onAnswer: onAnswer(false) };
    return {
      request: (attribute, args, kwargs, options) => this.request(service, attribute, args, kwargs, options),
      unlink: (options) => this.unlink(service, options),
      acquireLock: async ({ shared = false, timeout } = {}) => {
        return this.#start({ ...lock, kwargs: { shared }, timeout }).catch((error) => {
          const isUnclear = error.mayHaveRun && !(error instanceof ManagerError) && this.#isUp;
          if (isUnclear && !this.#links.get(service)?.isLocked) this.#start({ ...release, isOwn: true }).catch(ignore);
          throw error;
        });
      },
      releaseLock: async ({ timeout } = {}) => {
        const link = this.#links.get(service);
        if (!link?.lockLost) return this.#start({ ...release, timeout });
        link.lockLost = null; // the Manager has released it
        return [];
      },
    };
  }

  // ---- requests ----

  get #isUp() {
    return Boolean(this.#wire?.isOpen && !this.#wire.hasEnded);
  }

  get #canWait() {
    return this.options.reconnect && this.options.whileAway !== "raise";
  }

  #start({ service = MANAGER, attribute, args = [], kwargs = {}, timeout = this.options.requestTimeout, ...more }) {
    return new Promise((resolve, reject) => {
      const uid = random(); // not predictable: Managers of msl-network would pass on forged replies of other Services
      const text = stringify({ args, attribute, error: false, kwargs, service, uid });
      const request = { service, attribute, uid, text, resolve, reject, isSent: false, mayHaveRun: false, ...more };
      request.timer = after(timeout, () => this.#fail(request, ReplyTimeout, `No reply in ${timeout} s`));
      this.#dispatch(request);
    });
  }

  /** Send a request, or let it wait, or reject it, depending on the connection and the link. */
  #dispatch(request) {
    const [wire, link] = [this.#wire, this.#links.get(request.service)];
    const reason = this.error ? `: ${this.error.message}` : "";
    if (request.isOwn ? !wire.hasEnded : this.#isUp && !link?.lockLost && !(link?.isAway && this.#canWait))
      return this.#queue(wire, request);
    if (this.state !== "closed" && link?.lockLost) this.#fail(request, LockLost, `The lock was lost: ${link.lockLost}`);
    else if (this.state === "closed" || this.state === "connecting" || request.isOwn || !this.#canWait)
      this.#fail(request, ConnectionLost, `Not connected${reason}`);
    else this.#waiting.add(request);
  }

  #flush() {
    for (const request of [...this.#waiting]) this.#waiting.delete(request) && this.#dispatch(request);
  }

  #queue(wire, request) {
    request.wire = wire;
    if (!wire.admin) this.#send(wire, request);
    else wire.held[request.isBarrier ? "unshift" : "push"](request);
  }

  #send(wire, request) {
    if (request.service === MANAGER && !ANSWERED_WITH_UID.has(request.attribute)) wire.admin = request;
    wire.open.set(request.uid, request);
    wire.socket.send(request.text);
    Object.assign(request, { isSent: true, address: this.#links.get(request.service)?.facade.address });
    if (!request.isIdempotent) request.text = "";
  }

  #settle(request, error, result) {
    clearTimeout(request.timer);
    if (!error && !request.isSettled) request.onAnswer?.(result, request);
    request.isSettled = true;
    error ? request.reject(error) : request.resolve(result);
  }

  /** Settle a request without a reply; after a timeout it stays open, since its reply may still come. */
  #fail(request, Failure, why, mayHaveRun = request.isSent) {
    const { wire, service, attribute, uid } = request;
    this.#waiting.delete(request);
    if (wire) wire.held = wire.held.filter((held) => held !== request);
    if (Failure !== ReplyTimeout) wire?.open.delete(uid);
    request.mayHaveRun ||= mayHaveRun;
    const isTransient = Failure === ConnectionLost || (Failure === ServiceLost && this.#links.get(service)?.isAway);
    const isWaiting = isTransient && this.#canWait && !request.isOwn && !/^c(losed|onnecting)$/.test(this.state);
    if (isWaiting && !request.isSettled && (request.isIdempotent || !mayHaveRun)) {
      Object.assign(request, { isSent: false, wire: null });
      return void (Failure === ConnectionLost ? this.#waiting.add(request) : this.#dispatch(request));
    }
    const text = `${why}; ${service}.${attribute} ${request.mayHaveRun ? "may have been" : "was not"} executed`;
    const details = { mayHaveRun: request.mayHaveRun, service, attribute };
    if (this.state === "closed" && this.error) details.cause = this.error;
    this.#settle(request, new Failure(text, details));
  }

  // ---- connection ----

  #change(state, error = null, retryIn = 0) {
    if (this.state === "closed" && state !== "connecting") return;
    Object.assign(this, { state, error, retryIn });
    this.dispatchEvent(new Event("state"));
    if (state === "closed") this.#flush(); // rejects what waits
  }

  /** Try to connect until this succeeds, or return the error after which no further try is made. */
  async #connect(error, limit) {
    const [epoch, isFirst] = [this.#epoch, error === null];
    do {
      if (error) {
        const seconds = delay(since(this.#since), error.retryAfter);
        if (!this.options.reconnect || error.isFinal || !(error instanceof NetworkError)) return error;
        if (limit && since(this.#since) + seconds >= limit) return error;
        this.#change(isFirst ? "connecting" : "lost", error, seconds);
        await new Promise((resolve) => setTimeout((this.retry = resolve), seconds * 1000));
        if (epoch !== this.#epoch) return error;
        if (!isFirst) this.#change("reconnecting", error);
      }
      const left = limit && Math.max(limit - since(this.#since), 0.001);
      const longest = isFirst ? left : Math.min(this.options.timeout || ONE_TRY, ONE_TRY);
      error = await this.#dial(longest, isFirst).then(ignore, (failure) => failure);
    } while (error && epoch === this.#epoch);
    return error;
  }

  async #reconnect(wire, error) {
    const epoch = this.#epoch;
    this.#since = Date.now() / 1000 - (since(wire.openedAt) < 1 ? 2 : 0); // slower if it is lost again and again
    const failure = await this.#connect(error, this.options.giveUpAfter);
    if (failure && epoch === this.#epoch) this.#change("closed", failure);
  }

  #dial(longest, isFirst) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.url, "msl-network.v1");
      const wire = (this.#wire = { socket, resolve, reject, open: new Map(), held: [], refusing: new Set() });
      Object.assign(wire, { isGreeting: true, answers: {}, isFirst });
      const late = () => wire.isOpen || this.#end(wire, ConnectError, "it does not answer in time");
      wire.startClock = () => (wire.clock = after(longest, late));
      wire.reply = (result) => socket.send(stringify({ error: false, requester: this.manager, result, uid: "" }));
      wire.startClock();
      socket.onclose = ({ reason, code }) => this.#end(wire, ConnectError, reason || `no connection (code ${code})`);
      socket.onmessage = ({ data }) => {
        wire.isHeard = true;
        try {
          this.#receive(wire, parse(data));
        } catch (error) {
          wire.isFinal = isFirst;
          this.#end(wire, ConnectError, `${error.message}; no Manager sends ${String(data).slice(0, 80)}`);
        }
      };
    });
  }

  /** Request the peers periodically; drop the connection if nothing at all comes from the Manager. */
  async #watch(wire) {
    while (!wire.hasEnded) {
      wire.isHeard = false;
      HEARTBEAT.timeout = 3 * this.options.heartbeat;
      const error = await this.identity(HEARTBEAT).catch((failure) => failure);
      const isLate = error instanceof ReplyTimeout;
      if (isLate && !wire.isHeard && !wire.isAsking) this.#end(wire, ConnectError, "it says nothing any more");
      await new Promise((resolve) => after(this.options.heartbeat, resolve));
    }
  }

  #end(wire, Failure, why) {
    if (wire.hasEnded) return;
    wire.hasEnded = true;
    wire.socket.close();
    const Class = wire.isOpen ? ConnectionLost : wire.rejection ? AuthenticationError : Failure;
    const { rejection, retryAfter, isFirst } = wire;
    const isVerdict = Class === AuthenticationError && isFinal(rejection ?? "", retryAfter, isFirst);
    const text = `${wire.isOpen ? "Lost" : "Cannot connect to"} ${this.url}: ${rejection ?? why}`;
    const error = new Class(text, { retryAfter, isFinal: Boolean(isVerdict || wire.isFinal) });
    for (const service of this.#links.keys()) this.#presence.lose(service, error.message);
    for (const request of [...wire.open.values(), ...wire.held]) this.#fail(request, ConnectionLost, error.message);
    this.#flush(); // rejects what waits for a link whose lock was lost
    if (!wire.isOpen) wire.reject(error);
    else if (this.state !== "closed") this.#reconnect(wire, error);
  }

  #receive(wire, message) {
    const { uid, service, attribute, result, error, requester } = message;
    const request = wire.open.get(uid);
    const isNews = uid === "notification" && Array.isArray(result?.[0]) && result[1] instanceof Object;
    if (typeof message.message !== "string") message.message = "an error without a text";
    if (wire.isGreeting) this.manager = String(requester);
    if (request) this.#answered(wire, request, message);
    else if (isNews && service === MANAGER) this.#presence.notice(result[1]);
    else if (isNews) this.#links.get(service)?.notify(...result);
    else if (uid !== "") console.debug("Nobody waits for this", message);
    else if (error) this.#unaddressedError(wire, message);
    else if (wire.admin && "result" in message) this.#answered(wire, wire.admin, message);
    else if ((wire.admin || wire.isGreeting) && /^(username|password)$/.test(attribute)) this.#question(wire, message);
    else if (!wire.isGreeting || attribute !== "identity") console.warn("No Manager sends this", message);
    else {
      const os = globalThis.navigator?.platform || "unknown";
      wire.reply({ type: "client", name: this.options.name, language: "JavaScript", os, follows: ["services"] });
      wire.isGreeting = false;
      this.#start(BARRIER).then(() => this.#connected(wire), ignore);
    }
  }

  #connected(wire) {
    Object.assign(wire, { isOpen: true, openedAt: Date.now() / 1000 });
    Object.assign(this.options, wire.answers);
    this.#change("connected");
    this.#presence.connected(wire, 3 * this.options.heartbeat);
    this.#flush();
    wire.resolve();
    this.#watch(wire);
  }

  async #question(wire, { attribute, args }) {
    const [about, admin] = [String(args?.[0]), wire.admin];
    const key = attribute === "password" && /^Manager\[\S+:\d+\]$/.test(about) ? "passwordManager" : attribute;
    let answer = admin?.isSettled ? "" : this.options[key];
    if (answer === undefined && this.options.ask) {
      wire.isAsking = true; // no timeout while the user answers
      for (const timer of [wire.clock, admin?.timer]) clearTimeout(timer);
      const asked = Promise.resolve({ key, about, manager: this.manager }).then(this.options.ask);
      answer = await asked.catch(console.error);
      wire.answers[key] = answer;
      wire.isAsking = false;
      if (wire.isFirst) this.#since = Date.now() / 1000;
      if (wire.isGreeting) wire.startClock();
    }
    if (wire.hasEnded || wire.admin !== admin) return;
    if (answer || admin) wire.reply(answer || "");
    else this.#end(wire, AuthenticationError, `it asks for ${key}`);
  }

  #answered(wire, request, { error, message, traceback, requester, result }) {
    const { service, attribute } = request, isOwn = service === MANAGER;
    const lost = lossOf(message);
    if (isOwn && !error) this.name = String(requester);
    request.earlier = [];
    for (const [uid, earlier] of isOwn ? wire.open : []) {
      if (uid === request.uid) break;
      if (earlier.isSettled && uid !== wire.admin?.uid) wire.open.delete(uid); // no refusal can follow
      else request.earlier.push(earlier);
    }
    wire.open.delete(request.uid);
    if (!error) this.#settle(request, null, result);
    else if (isRefusal(message, service) || lost) {
      if (lost !== ConnectionLost) this.#presence.lose(service, message);
      this.#fail(request, lost || ServiceLost, message, !!lost);
    } else {
      const [typeName, Failure] = [/^[A-Za-z_][\w.]*(?=: )|^/.exec(message)[0], isOwn ? ManagerError : RemoteError];
      this.#settle(request, new Failure(message, { mayHaveRun: true, service, attribute, typeName, traceback }));
    }
    if (request === wire.admin) wire.admin = null;
    while (wire.held.length && !wire.admin) this.#send(wire, wire.held.shift());
  }

  #unaddressedError(wire, { message, requester, traceback, again }) {
    const requests = [...wire.open.values()].filter(({ service }) => service !== MANAGER);
    const refused = requests.filter(({ service }) => isRefusal(message, service));
    if ([...wire.refusing].some((service) => isRefusal(message, service))) return; // its request has failed
    if (refused.length) this.#presence.lose(refused[0].service, message);
    for (const request of refused) this.#fail(request, ServiceLost, message, refused.length > 1);
    if (refused.length) {
      wire.refusing.add(refused[0].service); // more refusals may follow, but none after the reply to this barrier:
      this.#start(BARRIER).then(() => wire.refusing.delete(refused[0].service), ignore);
    } else if (wire.admin) this.#answered(wire, wire.admin, { error: true, message, traceback });
    else if (wire.isGreeting || requester === this.manager)
      Object.assign(wire, { rejection: message, retryAfter: typeof again === "number" ? again : undefined });
    else for (const request of requests) this.#settle(request, new RemoteError(`Perhaps not read: ${message}`));
  }
}

export const connect = (url, options) => new Client(url, options).open();
