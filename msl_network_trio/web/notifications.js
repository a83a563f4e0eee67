/** The notifications of a Service: a bounded list of the newest ones. */

import { h, say } from "./dom.js";
import { formatArguments, visible } from "./format.js";

const KEPT = 200;
const LONGEST = 2000;

export class Notifications {
  received = 0;
  #gaps = 0;
  #list = h("ol", { class: "notifications card", tabindex: 0, "aria-label": "Notifications, the newest first" });
  #hint = h("li", { class: "hint" });
  #summary = h("p", { class: "hint", role: "status" });
  #watch = h("button", { type: "button", class: "small", "aria-pressed": "false" }, "Watch");
  #clear = h("button", { type: "button", class: "small quiet" }, "Clear");
  #waiting = [];
  #link = null;

  /** `link` links with the Service; `changed` is called when the count or the state has changed. */
  constructor(link, changed) {
    this.changed = changed;
    this.#watch.addEventListener("click", () => this.#toggle(link));
    this.#clear.addEventListener("click", () => this.#empty());
    const buttons = h("div", { class: "buttons" }, this.#clear, this.#watch);
    const head = h("div", { class: "notifications-head" }, h("h3", {}, "Notifications"), buttons);
    this.element = h("section", { class: "section" }, head, this.#list, this.#summary);
    this.#show();
  }

  get isWatching() {
    return this.#link !== null;
  }

  async #toggle(link) {
    this.#watch.disabled = true;
    try {
      if (this.#link === null) {
        this.#link = await link();
        this.#link.onNotification((notification) => this.#add(notification));
        this.#link.onGap((gap) => this.#mark(gap));
      } else {
        const { unlink } = this.#link;
        this.#link = null;
        await unlink();
      }
      this.#show();
      if (this.received === 0) this.#summary.textContent = this.isWatching ? "Watching" : "";
    } catch (error) {
      this.#show();
      say(this.#summary, error.message);
    }
    this.#watch.disabled = false;
  }

  #add({ args, kwargs }) {
    if (this.#link === null) return;
    this.received += 1;
    this.#put({ text: formatArguments(args, kwargs), time: new Date() });
  }

  /** Show that notifications may be missing. */
  #mark({ since, until, reason }) {
    if (this.#link === null) return;
    this.#gaps += 1;
    const seconds = Math.max(1, Math.ceil(until - since));
    this.#put({ gap: `${seconds} s without notifications: ${visible(reason)}`, time: new Date(until * 1000) });
  }

  #put(news) {
    this.#waiting.push(news);
    if (this.#waiting.length > KEPT) this.#waiting.shift();
    // Batched: the list is updated a few times per second, at any rate of notifications.
    if (this.#waiting.length === 1 || !this.timer) this.timer = setTimeout(() => this.#show(), 200);
  }

  #show() {
    this.timer = null;
    const items = this.#waiting.splice(0).reverse().map(item);
    this.#list.prepend(...items);
    while (this.#list.childElementCount > KEPT) this.#list.lastChild.remove();
    const [isEmpty, isWatching] = [this.received + this.#gaps === 0, this.isWatching];
    this.#hint.textContent = isWatching ? "None yet." : "Watch to see the notifications of the Service.";
    if (isEmpty) this.#list.replaceChildren(this.#hint);
    else this.#hint.remove();
    this.#clear.hidden = isEmpty;
    this.#watch.textContent = isWatching ? "Stop watching" : "Watch";
    this.#watch.setAttribute("aria-pressed", String(isWatching));
    const limit = this.received > KEPT ? `, the last ${KEPT} are shown` : "";
    if (!isEmpty) this.#summary.textContent = `${this.received.toLocaleString()} received${limit}`;
    this.changed();
  }

  #empty() {
    this.received = this.#gaps = 0;
    this.#waiting.length = 0;
    this.#list.replaceChildren();
    this.#summary.textContent = "";
    this.#show();
  }
}

function item({ text, gap, time }) {
  const shown =
    text?.length > LONGEST ? `${text.slice(0, LONGEST)}… (${text.length.toLocaleString()} characters)` : text;
  const clock = `${time.toTimeString().slice(0, 8)}.${String(time.getMilliseconds()).padStart(3, "0")}`;
  const content = gap ? h("em", { class: "gap" }, gap) : h("code", {}, shown || "(no arguments)");
  return h("li", {}, h("time", { datetime: time.toISOString() }, clock), content);
}
