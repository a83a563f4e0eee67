/** Elements for the page. What comes from the network becomes text and nothing else, here and everywhere. */

import { visible, visibleLines } from "./format.js";

/** Make an element. Children are elements or texts; `true` is an attribute without a value, false and null are none. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : visible(String(value)));
  }
  element.append(...children.map((child) => (typeof child === "string" ? visibleLines(child) : child)));
  return element;
}

/** The element with this id, which index.html has. */
export const byId = (id) => document.getElementById(id);

/** Replace the text of an element. */
export const say = (element, text) => (element.textContent = visibleLines(text));

let ids = 0;

/** An id that no other element has. */
export const newId = () => `made-${(ids += 1)}`;

const SHOWN = 20_000;

/** Show a text that may be very long: its beginning, and a button for the rest. */
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
