/** Presence: which Services are connected, what is lost with them, and how links are made again. */

import { ServiceLost, isRefusal } from "./errors.js";

const MANAGER = "Manager";
const [FIRST_RETRY, PROBE, LONG_PROBE] = [0.1, 2, 10]; // seconds between requests for a link
const ignore = () => {};

/**
 * The links of a client. A Manager of this package tells which Services have gone and come; at any Manager, links
 * that somebody uses are requested again periodically, which changes nothing but tells where the Service is.
 */
export class Presence {
  links = new Map(); // name of the Service -> LinkState
  wire = null; // the current connection, once it is open
  #start;
  #fail;
  #flush;

  /** `start` sends a request, `fail` rejects one, and `flush` sends those that have waited for a link. */
  constructor({ start, fail, flush }) {
    [this.#start, this.#fail, this.#flush] = [start, fail, flush];
  }

  get #isUp() {
    return this.wire !== null && !this.wire.hasEnded;
  }

  /** Request all links over a new connection, and from then on those that somebody uses. */
  async connected(wire, longest) {
    this.wire = wire;
    this.longest = longest;
    for (const link of this.links.values()) this.#ask(link);
    while (!wire.hasEnded) {
      await new Promise((resolve) => setTimeout(resolve, PROBE * 1000));
      if (!wire.tells) for (const link of this.links.values()) if (link.isFollowed) this.#ask(link);
    }
  }

  forget(service) {
    clearTimeout(this.links.get(service)?.timer);
    this.links.delete(service);
  }

  close() {
    for (const link of this.links.values()) clearTimeout(link.timer);
  }

  /** Take the answer to a request for a link; in order, since notifications of the Service may follow at once. */
  linked(link, identity, request) {
    const { service } = link;
    if (this.links.get(service) !== link) {
      this.#start({ attribute: "unlink", args: [service], isOwn: true }).catch(ignore); // unlinked meanwhile
      return;
    }
    if (link.facade.address !== identity.address) link.lose("the Service has restarted");
    this.#failMoved(request, (name) => (name === service ? identity.address : undefined));
    link.restore(identity);
    this.#flush();
  }

  /** Take the answer to an identity request: the connected peers. */
  seen(identity, request) {
    const whereIs = (service) => identity.services?.[service]?.address ?? null;
    for (const link of this.links.values()) {
      if (!whereIs(link.service)) this.lose(link.service, "the Service has gone");
      else if (whereIs(link.service) !== link.facade.address) {
        link.lose("the Service has restarted");
        this.#ask(link);
      }
    }
    this.#failMoved(request, whereIs);
  }

  /** Take a notice of the Manager: that it `tells`, or that a Service has `gone` or has come (`came`). */
  notice({ tells, gone, came }) {
    if (Array.isArray(tells) && this.wire) this.wire.tells = tells.includes("services");
    this.lose(gone, "the Service has gone");
    const back = this.links.get(came);
    if (!back) return;
    [back.attempts, back.hasCome] = [0, true];
    this.#ask(back);
  }

  /** Note that a link is lost, and request it again soon. */
  lose(service, reason) {
    const link = this.links.get(service);
    if (!link || link.isAway) return;
    link.lose(reason);
    this.#askSoon(link);
  }

  /** Reject requests to Services that have gone or restarted since the request was sent. */
  #failMoved({ wire, earlier }, whereIs) {
    for (const request of earlier.filter(({ uid, service }) => service !== MANAGER && wire.open.has(uid))) {
      const [before, now] = [request.address, whereIs(request.service)];
      if (now === null || (now && before && before !== now)) this.#fail(request, ServiceLost, "The Service has gone");
    }
  }

  #askSoon(link, seconds = Math.min(FIRST_RETRY * 2 ** link.attempts++, PROBE)) {
    clearTimeout(link.timer);
    if (this.#isUp) link.timer = setTimeout(() => this.#ask(link), seconds * 1000);
  }

  async #ask(link) {
    if (link.isAsking || !this.#isUp) return;
    clearTimeout(link.timer);
    [link.isAsking, link.hasCome] = [true, false];
    const { service } = link;
    const onAnswer = (identity, request) => this.linked(link, identity, request);
    const details = { attribute: "link", args: [service], timeout: this.longest, isOwn: true, onAnswer };
    const failure = await this.#start(details).then(ignore, (error) => error);
    link.isAsking = false;
    if (!failure || this.links.get(service) !== link) return;
    const isUnknown = failure instanceof ServiceLost || isRefusal(failure.message, service);
    if (isUnknown) this.lose(service, "the Service has gone");
    const isTold = isUnknown && this.wire.tells && !link.hasCome; // when the Service comes
    if (link.isAway) this.#askSoon(link, isTold ? LONG_PROBE : undefined);
  }
}
