/**
 * A client of an MSL-Network Manager for web pages, over WebSocket. All times are in seconds.
 *   const client = await connect("wss://lab-3:8875/msl", { name: "Dashboard" });
 *   const math = await client.link("BasicMath");
 *   await math.add(1, 2);
 *   await math.request("add", [1], { y: 2 }, { timeout: 5 }); // keyword arguments and a timeout
 *   math.onNotification(({ args, kwargs }) => console.log(args, kwargs));
 */
import { parse, stringify } from "./exact-json.js";

const [MANAGER, NEWS] = ["Manager", Symbol("notifications")];
const ANSWERED_WITH_UID = new Set(["identity", "link", "unlink", "acquire_lock", "release_lock"]);
const [FIRST_DELAY, LONGEST_DELAY] = [0.5, 30]; // before a reconnection
const random = () => [...crypto.getRandomValues(new Uint32Array(3))].map((n) => n.toString(36)).join("");
const after = (seconds, callback) => (seconds ? setTimeout(callback, Math.min(seconds * 1000, 2 ** 31 - 1)) : null);
const ignore = () => {};
const BARRIER = [MANAGER, "unlink", [`nobody is called ${random()}`], {}, { timeout: 0 }]; // changes nothing

/** The base class of all errors; `mayHaveRun` is false if the request was certainly not executed. */
export class NetworkError extends Error {
  constructor(message, details) {
    super(message);
    Object.assign(this, { name: new.target.name, mayHaveRun: false }, details);
  }
}
export class ConnectError extends NetworkError {} // no connection was made
export class AuthenticationError extends ConnectError {} // the Manager has rejected the client
export class ConnectionLost extends NetworkError {} // the connection has ended
export class ReplyTimeout extends NetworkError {} // no reply came in time
export class ServiceLost extends NetworkError {} // the Service is not connected
export class RemoteError extends NetworkError {} // the Service raised `typeName`; `traceback` is a list of lines
export class ManagerError extends RemoteError {} // the Manager has rejected the request

/** Return true if an error says that the Manager does not know this Service (quoted twice, as by Python). */
function isRefusal(message, service) {
  const quoted = /^KeyError: .the \\?['"](.+?)\\?['"] Service is not connected to /s.exec(message)?.[1];
  return quoted?.replaceAll("\\", "") === service.replaceAll("\\", "");
}

/** A link with a Service. Any other attribute is a method of the Service. */
function makeLink(client, service) {
  const handlers = new Set();
  const link = {
    service,
    address: null, // the address of the Service; null while it is not connected
    request: (attribute, args, kwargs, options) => client.request(service, attribute, args, kwargs, options),
    unlink: (options) => client.unlink(service, options),
    onNotification: (handler) => handlers.add(handler) && (() => handlers.delete(handler)), // returns unsubscribe
    [NEWS]: (news) => handlers.forEach((handler) => Promise.resolve(news).then(handler).catch(console.error)),
  };
  const isOurs = (name) => typeof name === "symbol" || name in link || /^_|^then$|^toJSON$/.test(name);
  return new Proxy(link, { get: (_, name) => (isOurs(name) ? link[name] : (...args) => link.request(name, args)) });
}

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
  #links = new Map();
  #delay = FIRST_DELAY;
  #wire; // the state of one WebSocket

  constructor(url, options) {
    super();
    this.url = String(url);
    this.options = { name: "Browser", timeout: 10, requestTimeout: 0, heartbeat: 10, reconnect: true, ...options };
  }

  async open() {
    this.#change("connecting");
    const error = await this.#dial().catch((failure) => failure);
    if (!error) return this;
    this.#change("closed", error);
    throw error;
  }

  close() {
    this.#change("closed");
    this.retry();
    if (this.#wire) this.#end(this.#wire, ConnectError, "closed by this client");
  }

  /** Request the connected peers from the Manager, and relink with Services that have restarted. */
  async identity(options) {
    const [wire, earlier] = [this.#wire, [...(this.#wire?.open.values() ?? [])]];
    const identity = await this.request(MANAGER, "identity", [], {}, options);
    const whereIs = (service) => identity.services?.[service]?.address ?? null;
    const hasMoved = ({ service, address }) => !whereIs(service) || (address && address !== whereIs(service));
    const hasGone = (request) => request.service !== MANAGER && wire.open.has(request.uid) && hasMoved(request);
    for (const request of earlier.filter(hasGone)) this.#fail(wire, request, ServiceLost, "The Service has gone");
    for (const link of this.#links.values())
      if (!whereIs(link.service)) link.address = null;
      else if (whereIs(link.service) !== link.address) await this.link(link.service, options, true).catch(ignore);
    this.dispatchEvent(new CustomEvent("identity", { detail: identity }));
    return identity;
  }

  async link(service, options, isAgain = false) {
    const identity = await this.request(MANAGER, "link", [service], {}, options);
    if (isAgain && !this.#links.has(service)) return this.unlink(service, options); // unlinked meanwhile
    const link = this.#links.get(service) ?? makeLink(this, service);
    this.#links.set(service, Object.assign(link, { identity, address: identity.address }));
    return link;
  }

  async unlink(service, options) {
    this.#links.delete(service);
    return this.request(MANAGER, "unlink", [service], {}, options);
  }

  async request(service, attribute, args = [], kwargs = {}, { timeout = this.options.requestTimeout } = {}) {
    const [wire, isBarrier] = [this.#wire, args === BARRIER[2]];
    [service, attribute] = [String(service), String(attribute)];
    if (attribute === "__disconnect__") throw new TypeError("Use close() to end the connection");
    if (this.state !== "connected" && !isBarrier) throw new ConnectionLost(`Not connected; ${attribute} was not sent`);
    return new Promise((resolve, reject) => {
      const uid = random(); // not predictable: Managers of msl-network would pass on forged replies of other Services
      const text = stringify({ args, attribute, error: false, kwargs, service, uid });
      const request = { service, attribute, uid, text, resolve, reject, isSent: false };
      request.timer = after(timeout, () => this.#fail(wire, request, ReplyTimeout, `No reply in ${timeout} s`));
      if (!wire.admin) this.#send(wire, request);
      else wire.held[isBarrier ? "unshift" : "push"](request);
    });
  }

  #change(state, error = null, retryIn = 0) {
    if (this.state === "closed" && state !== "connecting") return;
    Object.assign(this, { state, error, retryIn });
    this.dispatchEvent(new Event("state"));
  }

  #dial() {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.url, "msl-network.v1");
      const wire = (this.#wire = { socket, resolve, reject, open: new Map(), held: [], refusing: new Set() });
      Object.assign(wire, { isGreeting: true, answers: {} });
      const late = () => wire.isOpen || this.#end(wire, ConnectError, "it does not answer in time");
      wire.startClock = () => (wire.clock = after(this.options.timeout, late));
      wire.reply = (result) => socket.send(stringify({ error: false, requester: this.manager, result, uid: "" }));
      wire.startClock();
      socket.onclose = ({ reason, code }) => this.#end(wire, ConnectError, reason || `no connection (code ${code})`);
      socket.onmessage = ({ data }) => {
        wire.isHeard = true;
        try {
          this.#receive(wire, parse(data));
        } catch (error) {
          this.#end(wire, ConnectError, `${error.message}; no Manager sends ${String(data).slice(0, 80)}`);
        }
      };
    });
  }

  /** Request the peers periodically; drop the connection if nothing at all comes from the Manager. */
  async #watch(wire) {
    for (let beat = 0; !wire.hasEnded; beat++) {
      if (beat > 0) this.#delay = FIRST_DELAY;
      wire.isHeard = false;
      const error = await this.identity({ timeout: 3 * this.options.heartbeat }).catch((failure) => failure);
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
    const error = new Class(`${wire.isOpen ? "Lost" : "Cannot connect to"} ${this.url}: ${wire.rejection ?? why}`);
    const unanswered = [...wire.open.values(), ...wire.held];
    for (const request of unanswered) this.#fail(wire, request, ConnectionLost, error.message);
    wire.isOpen ? this.#reconnect(error) : wire.reject(error);
  }

  async #reconnect(error) {
    for (const link of this.#links.values()) link.address = null;
    while (error && this.options.reconnect && this.state !== "closed" && !(error instanceof AuthenticationError)) {
      const seconds = this.#delay * (0.5 + Math.random() / 2);
      this.#delay = Math.min(this.#delay * 2, LONGEST_DELAY);
      this.#change("lost", error, seconds);
      await new Promise((resolve) => after(seconds, (this.retry = resolve)));
      this.#change("reconnecting", error);
      if (this.state !== "closed") error = await this.#dial().catch((failure) => failure);
    }
    if (error) this.#change("closed", error);
  }

  #send(wire, request) {
    if (request.service === MANAGER && !ANSWERED_WITH_UID.has(request.attribute)) wire.admin = request;
    wire.open.set(request.uid, request);
    wire.socket.send(request.text);
    Object.assign(request, { isSent: true, text: "", address: this.#links.get(request.service)?.address });
  }

  #settle(request, error, result) {
    clearTimeout(request.timer);
    request.isSettled = true;
    error ? request.reject(error) : request.resolve(result);
  }

  /** Settle a request without a reply; after a timeout it stays open, since its reply may still come. */
  #fail(wire, request, Failure, why, mayHaveRun = request.isSent) {
    const { service, attribute, uid } = request;
    wire.held = wire.held.filter((held) => held !== request);
    if (Failure !== ReplyTimeout) wire.open.delete(uid);
    const text = `${why}; ${service}.${attribute} ${mayHaveRun ? "may have been" : "was not"} executed`;
    this.#settle(request, new Failure(text, { mayHaveRun, service, attribute }));
  }

  #receive(wire, message) {
    const { uid, service, attribute, result, error, requester } = message;
    const request = wire.open.get(uid);
    const isNews = uid === "notification" && Array.isArray(result?.[0]) && result[1] instanceof Object;
    if (typeof message.message !== "string") message.message = "an error without a text";
    if (wire.isGreeting) this.manager = String(requester);
    if (request) this.#answered(wire, request, message);
    else if (isNews) this.#links.get(service)?.[NEWS]({ service, args: result[0], kwargs: result[1] });
    else if (uid !== "") console.debug("Nobody waits for this", message);
    else if (error) this.#unaddressedError(wire, message);
    else if (wire.admin && "result" in message) this.#answered(wire, wire.admin, message);
    else if ((wire.admin || wire.isGreeting) && /^(username|password)$/.test(attribute)) this.#question(wire, message);
    else if (!wire.isGreeting || attribute !== "identity") console.warn("No Manager sends this", message);
    else {
      const os = globalThis.navigator?.platform || "unknown";
      wire.reply({ type: "client", name: this.options.name, language: "JavaScript", os });
      wire.isGreeting = false;
      this.request(...BARRIER).then(() => this.#connected(wire), ignore);
    }
  }

  #connected(wire) {
    wire.isOpen = true;
    Object.assign(this.options, wire.answers);
    this.#change("connected");
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
      if (wire.isGreeting) wire.startClock();
    }
    if (wire.hasEnded || wire.admin !== admin) return;
    if (answer || admin) wire.reply(answer || "");
    else this.#end(wire, AuthenticationError, `it asks for ${key}`);
  }

  #answered(wire, request, { error, message, traceback, requester, result }) {
    const { service, attribute } = request, isOwn = service === MANAGER;
    const hasGone = /^ConnectionError: the .+ Service has gone from /s.test(message); // text of our Manager
    const lost = /^ConnectionAborted.+, the request may /s.test(message) ? ConnectionLost : hasGone && ServiceLost;
    if (isOwn && !error) this.name = String(requester);
    for (const [uid, { isSettled }] of isOwn ? wire.open : []) {
      if (uid === request.uid) break;
      if (isSettled && uid !== wire.admin?.uid) wire.open.delete(uid); // no refusal can follow
    }
    wire.open.delete(request.uid);
    if (!error) this.#settle(request, null, result);
    else if (isRefusal(message, service) || lost) this.#fail(wire, request, lost || ServiceLost, message, !!lost);
    else {
      const [typeName, Failure] = [/^[A-Za-z_][\w.]*(?=: )|^/.exec(message)[0], isOwn ? ManagerError : RemoteError];
      this.#settle(request, new Failure(message, { mayHaveRun: true, service, attribute, typeName, traceback }));
    }
    if (request === wire.admin) wire.admin = null;
    while (wire.held.length && !wire.admin) this.#send(wire, wire.held.shift());
  }

  #unaddressedError(wire, { message, requester, traceback }) {
    const requests = [...wire.open.values()].filter(({ service }) => service !== MANAGER);
    const refused = requests.filter(({ service }) => isRefusal(message, service));
    if ([...wire.refusing].some((service) => isRefusal(message, service))) return; // its request has failed
    for (const request of refused) this.#fail(wire, request, ServiceLost, message, refused.length > 1);
    if (refused.length) {
      wire.refusing.add(refused[0].service); // more refusals may follow, but none after the reply to this barrier:
      this.request(...BARRIER).then(() => wire.refusing.delete(refused[0].service), ignore);
    } else if (wire.admin) this.#answered(wire, wire.admin, { error: true, message, traceback });
    else if (wire.isGreeting || requester === this.manager) wire.rejection = message;
    else for (const request of requests) this.#settle(request, new RemoteError(`Perhaps not read: ${message}`));
  }
}

export const connect = (url, options) => new Client(url, options).open();
