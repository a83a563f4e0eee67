/** An attribute of a Service: its description, a form to call it, and the results. */

import { h, longText, newId, say } from "./dom.js";
import { compact, cut, isSignature, parameters, pretty, told as shorten } from "./format.js";
import { parseArguments, TypingError } from "./literals.js";

const FATES = {
  ReplyTimeout: "No reply in time",
  ServiceLost: "The Service is not connected",
  ConnectionLost: "The connection was lost",
};

/** Return the folded element of an attribute that the Service's identity lists. */
export function listedAttribute(request, name, told) {
  const isMethod = isSignature(told);
  const signature = h("code", { class: "signature" }, cut(isMethod ? told : `= ${compact(told)}`, 400));
  const summary = h("summary", {}, h("span", {}, h("code", { class: "name" }, shorten(name)), " ", signature));
  const details = h("details", { class: "method" }, summary);
  // The form is built when it is unfolded: a Service may have hundreds of attributes.
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(callForm(request, { name, told, isMethod }));
  });
  return details;
}

/** Return a form for attributes that the identity does not list. */
export function otherAttribute(request) {
  const summary = h("summary", {}, "Another attribute…");
  const hint = h("p", { class: "hint" }, "A Service may have attributes that its identity does not list.");
  const form = callForm(request, { name: null, told: "()", isMethod: true });
  form.prepend(hint);
  return h("details", { class: "method" }, summary, form);
}

function callForm(request, { name, told, isMethod }) {
  const [nameId, argumentsId, limitId, mistakeId] = [newId(), newId(), newId(), newId()];
  const names = isMethod ? parameters(told) : "";
  const typed = { autocomplete: "off", autocapitalize: "off", spellcheck: "false", class: "mono" };
  const nameInput = h("input", { id: nameId, required: true, ...typed });
  const placeholder = names || (name === null ? '1, "text", key=[2.5, None]' : "none");
  const input = h("input", { id: argumentsId, placeholder, "aria-describedby": mistakeId, ...typed });
  const limit = h("input", { id: limitId, type: "number", min: 0, step: "any", inputmode: "decimal", value: 60 });
  const button = h("button", { type: "submit" }, isMethod ? "Call" : "Read");
  const mistake = h("p", { id: mistakeId, class: "mistake", role: "alert", hidden: true });
  const outcome = h("div");
  const spoken = h("p", { role: "status", class: "spoken" });
  const field = (kind, id, label, element) => h("div", { class: kind }, h("label", { for: id }, label), element);
  const form = h("form", { class: `call ${name === null ? "other" : isMethod ? "" : "value"}`, novalidate: true });
  if (name === null) form.append(field("field wide", nameId, "Attribute", nameInput));
  if (isMethod) form.append(field("field wide", argumentsId, "Arguments", input));
  form.append(field("field", limitId, "Timeout (s)", limit), button, mistake);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    const [typedName, seconds] = [name ?? nameInput.value.trim(), limit.valueAsNumber || 0];
    if (!typedName) return complain(nameInput, mistake, "The name of the attribute is missing");
    if (!(seconds >= 0) || limit.validity.badInput) return complain(limit, mistake, "The timeout is no number");
    let call;
    try {
      call = parseArguments(input.value);
    } catch (error) {
      if (!(error instanceof TypingError)) throw error;
      complain(input, mistake, error.message);
      return input.setSelectionRange(error.position - 1, error.position - 1);
    }
    button.disabled = true;
    await run(request, { name: typedName, ...call, timeout: seconds }, outcome, spoken);
    button.disabled = false;
  });
  form.addEventListener("input", ({ target }) => {
    mistake.hidden = true;
    target.removeAttribute("aria-invalid");
  });
  return h("div", { class: "body" }, form, outcome, spoken);
}

function complain(input, mistake, text) {
  say(mistake, text);
  mistake.hidden = false;
  input.setAttribute("aria-invalid", "true");
  input.focus();
}

/** Send a request and show its result; "Stop waiting" abandons the reply, the request cannot be withdrawn. */
async function run(request, { name, args, kwargs, timeout }, outcome, spoken) {
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  const elapsed = h("span", { "aria-hidden": "true" });
  const ticking = setInterval(() => (elapsed.textContent = `${Math.floor(seconds())} s`), 1000);
  let stop;
  const stopped = new Promise((_, reject) => (stop = reject));
  const button = h("button", { type: "button", class: "quiet small" }, "Stop waiting");
  const stopping = "No longer waiting; the Service may still execute the request";
  button.addEventListener("click", () => stop(new Error(stopping)));
  outcome.replaceChildren(box("waiting", h("strong", {}, "Waiting for the reply"), elapsed, button));
  spoken.textContent = "Waiting for the reply";
  try {
    const result = await Promise.race([request(name, args, kwargs, { timeout }), stopped]);
    const isProse = typeof result === "string" && result.includes("\n");
    const text = isProse ? result : pretty(result);
    const title = h("strong", {}, describe(result));
    outcome.replaceChildren(box("done", title, `after ${duration(seconds())}`, ...longText(text)));
    spoken.textContent = `${title.textContent}: ${cut(text, 300)}`;
  } catch (error) {
    outcome.replaceChildren(failure(error, seconds()));
    say(spoken, `Failed: ${cut(error.message, 300)}`);
  } finally {
    clearInterval(ticking);
  }
}

function box(kind, title, ...rest) {
  const besides = rest.filter((each) => !(each instanceof HTMLPreElement) && each.tagName !== "DETAILS");
  const below = rest.filter((each) => !besides.includes(each));
  return h("div", { class: `outcome ${kind}` }, h("div", { class: "about" }, title, ...besides), ...below);
}

function failure(error, seconds) {
  const title = FATES[error.name] ?? (error.typeName ? "The Service raised an error" : "Failed");
  const parts = [h("strong", {}, title), `after ${duration(seconds)}`, ...longText(error.message)];
  if (Array.isArray(error.traceback) && error.traceback.length) {
    const lines = error.traceback.map((line) => shorten(line, 2000)); // a faulty Service may send no strings
    parts.push(h("details", {}, h("summary", {}, "Traceback of the Service"), ...longText(lines.join("\n"))));
  }
  return box("failed", ...parts);
}

function describe(value) {
  if (value === null) return "None";
  if (Array.isArray(value)) return `List, ${count(value.length, "item")}`;
  if (typeof value === "object") return `Dictionary, ${count(Object.keys(value).length, "item")}`;
  if (typeof value === "string") return `Text, ${count(value.length, "character")}`;
  return typeof value === "boolean" ? "Boolean" : "Number";
}

const count = (number, what) => `${number.toLocaleString()} ${what}${number === 1 ? "" : "s"}`;
const duration = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);
