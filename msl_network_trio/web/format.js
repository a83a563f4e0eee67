/** Formats values and signatures for display. */

const WIDTH = 76;

/** Return a value as JSON on one line, with exact numbers. */
export function compact(value) {
  if (Array.isArray(value)) return `[${value.map(compact).join(", ")}]`;
  if (value === null || typeof value !== "object") return typeof value === "string" ? quote(value) : String(value);
  return `{${Object.entries(value)
    .map(([key, member]) => `${quote(key)}: ${compact(member)}`)
    .join(", ")}}`;
}

/** Return a value as indented JSON; arrays of short items share lines. */
export function pretty(value, indent = "") {
  const line = compact(value);
  if (value === null || typeof value !== "object" || line.length + indent.length <= WIDTH) return line;
  const deeper = `${indent}  `;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const parts = Array.isArray(value)
    ? value.map((item) => pretty(item, deeper))
    : Object.entries(value).map(([key, member]) => `${quote(key)}: ${pretty(member, deeper)}`);
  const isFlat = Array.isArray(value) && value.every((item) => item === null || typeof item !== "object");
  return `${open}\n${deeper}${join(parts, deeper, isFlat)}\n${indent}${close}`;
}

function join(parts, indent, fillsLines) {
  if (!fillsLines) return parts.join(`,\n${indent}`);
  const lines = [];
  let line = "";
  for (const part of parts) {
    if (line && line.length + part.length + 2 > WIDTH - indent.length) {
      lines.push(line);
      line = "";
    }
    line += line ? `, ${part}` : part;
  }
  return [...lines, line].join(`,\n${indent}`);
}

const quote = (text) => visible(JSON.stringify(text));

const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\p{Surrogate}/gu;
const NAMED = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escape(character) {
  const code = character.charCodeAt(0).toString(16);
  return NAMED[character] ?? (code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`);
}

/** Return a text as one line, with control characters escaped, since these could disguise it. */
export const visible = (text) => text.replace(INVISIBLE, escape);

/** Return a text of several lines with all other control characters escaped. */
export const visibleLines = (text) =>
  text.replace(INVISIBLE, (character) => ("\n\t".includes(character) ? character : escape(character)));

/** Return the arguments of a call without parentheses: `1, 2, key=3`. */
export function formatArguments(args, kwargs) {
  const named = Object.entries(kwargs).map(([name, value]) => `${name}=${compact(value)}`);
  return [...args.map(compact), ...named].join(", ");
}

/** Return a part of a peer's identity on one line of limited length. */
export const told = (value, length = 200) => cut(typeof value === "string" ? visible(value) : compact(value), length);

export const cut = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);

/** Return true if the description of an attribute in an identity is a method's signature, not a value. */
export const isSignature = (told) => typeof told === "string" && /^\(.*\)/s.test(told);

/** Return the parameters of a signature with their defaults: "x, y=2" for "(x: int, y: int = 2) -> int". */
export function parameters(signature) {
  if (signature.length > 2000) return ""; // too long to display
  const inside = signature.slice(1, closing(signature));
  return split(inside)
    .map((part) => {
      const [name] = part.split(/[:=]/, 1);
      const equals = outside(part).indexOf("=");
      return equals < 0 ? name.trim() : `${name.trim()}=${part.slice(equals + 1).trim()}`;
    })
    .filter((part) => part && part !== "/" && part !== "*")
    .join(", ");
}

/** Blank out everything inside brackets and quotes, so that positions stay the same. */
function outside(text) {
  let depth = 0;
  return text
    .replace(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/g, (quoted) => " ".repeat(quoted.length))
    .replace(/./gs, (character) => {
      if ("([{".includes(character)) depth += 1;
      const shown = depth > 0 ? " " : character;
      if (")]}".includes(character)) depth -= 1;
      return shown;
    });
}

function closing(signature) {
  const blank = outside(signature);
  const end = blank.search(/[^ ]/);
  return signature.slice(0, end < 0 ? undefined : end).trimEnd().length - 1;
}

function split(text) {
  const parts = [];
  let start = 0;
  for (const { index } of outside(text).matchAll(/,/g)) {
    parts.push(text.slice(start, index));
    start = index + 1;
  }
  return [...parts, text.slice(start)];
}
