/** Helpers that build the elements of the page. Data of the network becomes text nodes only, never markup. */

import { visible, visibleLines } from "./format.js";

/** Create an element. Children are elements or texts; attributes that are null or false are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : visible(String(value)));
  }
  element.append(...children.map((child) => (typeof child === "string" ? visibleLines(child) : child)));
  return element;
}

/** Return the element of index.html with this id. */
export const byId = (id) => document.getElementById(id);

/** Replace the text of an element. */
export const say = (element, text) => (element.textContent = visibleLines(text));

let ids = 0;

/** Return a unique id for an element. */
export const newId = () => `made-${(ids += 1)}`;

const SHOWN = 20_000;

/** Return an element that shows the start of a long text, and a button that shows the rest. */
export function longText(text) {
  const pre = h("pre", { tabindex: 0 }, text.slice(0, SHOWN));
  if (text.length <= SHOWN) return [pre];
  const button = h(
    "button",
    { type: "button", class: "quiet small" },
    `Show all ${text.length.toLocaleString()} characters`,
  );
  button.addEventListener("click", () => {
    say(pre, text);
    button.remove();
    pre.focus();
  });
  return [pre, button];
}
