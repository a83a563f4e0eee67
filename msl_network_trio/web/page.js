/** The page: the connection, the peers, and the selected Service. */

import { byId, h, say } from "./dom.js";
import { compact, told, visible } from "./format.js";
import { listedAttribute, otherAttribute } from "./method.js";
import { Client } from "./msl-network.js";
import { Notifications } from "./notifications.js";

const STATES = {
  connecting: "Connecting",
  connected: "Connected",
  lost: "Connection lost",
  reconnecting: "Reconnecting",
  closed: "Not connected",
};

const address = new URL("msl", location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
address.search = address.hash = "";

const client = new Client(address, { name: "Web page", heartbeat: 5, ask, whileAway: "raise" });
const services = new Map(); // name -> its view
let identity = { services: {}, clients: {} };
let clientsShown = "";
let hasDeclined = false; // the user has declined to answer the Manager's question

// ---- connection ----

client.addEventListener("state", showState);
client.addEventListener("identity", ({ detail }) => {
  identity = { services: {}, clients: {}, ...detail };
  showWhoIsThere();
});
byId("retry").addEventListener("click", () => (client.state === "closed" ? open() : client.retry()));
addEventListener("online", () => client.retry());
addEventListener("hashchange", () => showService(true));

function open() {
  hasDeclined = false;
  client.open().catch(() => {}); // showState() has shown the error
}

function showState() {
  const { state, error, manager, retryIn } = client;
  byId("state").textContent = STATES[state];
  byId("state").dataset.state = state;
  if (manager) say(byId("manager"), visible(manager));
  if (manager) document.title = `${visible(manager)} – MSL-Network`;
  const isTrouble = ["lost", "closed", "reconnecting"].includes(state) && error !== null;
  byId("trouble").hidden = !isTrouble;
  byId("login").close("lost"); // its question belongs to a connection that has ended
  if (!isTrouble) return;
  const text = hasDeclined ? "The Manager requires an answer to its question" : error.message;
  const next = state === "lost" ? ` Trying again in ${Math.ceil(retryIn)} s.` : "";
  say(byId("trouble-text"), `${text}.${next}`);
  byId("retry").textContent = state === "closed" ? "Connect" : "Try now";
  byId("retry").hidden = state === "reconnecting";
}

/** Show a question of the Manager, and return the answer; empty if the user declines. */
function ask({ key, about, manager }) {
  const [dialog, answer] = [byId("login"), byId("login-answer")];
  const isName = key === "username";
  const whose = { username: "your name", password: `the password of ${about}`, passwordManager: "its password" }[key];
  say(byId("login-text"), visible(`${manager} asks for ${whose}.`));
  byId("login-label").textContent = isName ? "User name" : "Password";
  Object.assign(answer, { value: "", type: isName ? "text" : "password" });
  answer.autocomplete = isName ? "username" : "current-password";
  return new Promise((resolve) => {
    byId("login-cancel").onclick = () => dialog.close("");
    dialog.returnValue = "";
    dialog.onclose = () => {
      hasDeclined = dialog.returnValue === "";
      resolve(dialog.returnValue === "ok" ? answer.value : "");
    };
    dialog.showModal();
  });
}

// ---- peers ----

function showWhoIsThere() {
  const names = Object.keys(identity.services).sort((a, b) => a.localeCompare(b));
  for (const name of names) if (!services.has(name)) services.set(name, makeEntry(name));
  const shown = [...services.keys()].filter((name) => isThere(name) || services.get(name).notifications.isWatching);
  shown.sort((a, b) => a.localeCompare(b));
  const links = shown.map((name) => services.get(name).item);
  const list = byId("services");
  const isSame = list.childElementCount === links.length && links.every((link, index) => list.children[index] === link);
  if (!isSame) list.replaceChildren(...links);
  for (const name of shown) showEntry(name);
  byId("services-count").textContent = `(${names.length})`;
  byId("no-services").hidden = names.length > 0;
  showClients();
  showService(false);
}

const isThere = (name) => Object.hasOwn(identity.services, name);
const about = (...facts) =>
  facts
    .filter(Boolean)
    .map((fact) => told(fact))
    .join(" · ");
const hash = (name) => `#${encodeURIComponent(name.replace(/\p{Surrogate}/gu, "\ufffd"))}`;

function makeEntry(name) {
  const badge = h("span", { class: "badge", hidden: true });
  const facts = h("span", { class: "about told" });
  const link = h("a", { href: hash(name) }, h("span", { class: "name told" }, told(name)), badge, facts);
  const entry = { item: h("li", {}, link), link, badge, about: facts, panel: null, attributes: "" };
  entry.notifications = new Notifications(
    () => client.link(name),
    () => showEntry(name),
  );
  return entry;
}

function showEntry(name) {
  const entry = services.get(name);
  if (!entry) return;
  const { address: where, language } = identity.services[name] ?? {};
  entry.about.textContent = isThere(name) ? about(where, language) : "has gone";
  entry.badge.hidden = !entry.notifications.isWatching;
  entry.badge.textContent = entry.notifications.received.toLocaleString();
  entry.badge.setAttribute("aria-label", `${entry.badge.textContent} notifications`);
}

function showClients() {
  const names = Object.keys(identity.clients).sort((a, b) => a.localeCompare(b));
  const news = compact([client.name, identity.clients]);
  if (news === clientsShown) return; // keeps the user's selection
  clientsShown = news;
  byId("clients-count").textContent = `(${names.length})`;
  byId("clients").replaceChildren(
    ...names.map((name) => {
      const { language, os } = identity.clients[name] ?? {};
      const you = name === client.name ? h("span", { class: "you" }, " (this page)") : "";
      const more = h("span", { class: "about told" }, about(language, os));
      return h("li", {}, h("span", { class: "told" }, told(name)), you, more);
    }),
  );
}

// ---- selected Service ----

function chosen() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // the user may have typed an invalid address
  }
}

function showService(isNews) {
  const name = chosen();
  for (const [each, { link }] of services) {
    if (each === name) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const entry = services.get(name);
  if (!entry) return;
  const attributes = isThere(name) ? compact(identity.services[name].attributes ?? {}) : entry.attributes;
  if (isThere(name) && (entry.panel === null || entry.attributes !== attributes)) {
    Object.assign(entry, { attributes, panel: makePanel(name, entry) });
  }
  if (entry.panel === null) return;
  showFacts(name, entry);
  if (byId("content").firstChild !== entry.panel) byId("content").replaceChildren(entry.panel);
  if (isNews) byId("content").focus({ preventScroll: true });
  if (isNews) byId("content").scrollIntoView({ block: "nearest" });
}

function makePanel(name, entry) {
  const request = (...call) => client.request(name, ...call);
  const attributes = Object.entries(identity.services[name].attributes ?? {});
  const methods = attributes.map(([attribute, description]) => listedAttribute(request, attribute, description));
  entry.facts = h("p", { class: "hint told" });
  return h(
    "div",
    {},
    h("div", { class: "service-head" }, h("div", {}, h("h2", { class: "told" }, told(name)), entry.facts)),
    h(
      "section",
      { class: "section" },
      h("h3", {}, "Attributes ", h("span", { class: "count" }, `(${methods.length})`)),
      h("div", { class: "card" }, ...methods, otherAttribute(request)),
    ),
    entry.notifications.element,
  );
}

function showFacts(name, { facts }) {
  const { address: where, language, os, max_clients: most } = identity.services[name] ?? {};
  const limit = most > 0 ? `at most ${told(most)} clients` : "";
  facts.textContent = isThere(name) ? about(where, language, os, limit) : "This Service is no longer connected.";
}

byId("address").textContent = address.href;
open();
