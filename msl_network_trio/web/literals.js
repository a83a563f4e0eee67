/** Parses the arguments of a call: literals of Python or JSON. Nothing is evaluated. */

import { Float } from "./exact-json.js";

const CONSTANTS = new Map([
  ...["None", "null"].map((name) => [name, null]),
  ...["True", "true"].map((name) => [name, true]),
  ...["False", "false"].map((name) => [name, false]),
  ...["NaN", "nan"].map((name) => [name, NaN]),
  ...["Infinity", "inf"].map((name) => [name, Infinity]),
]);
const ESCAPES = { n: "\n", r: "\r", t: "\t", b: "\b", f: "\f", v: "\v", a: "\x07", 0: "\0", "\n": "" };
const NUMBER = /[-+]?(?:0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?)/y;
const NAME = /[\p{L}_][\p{L}\p{N}_]*/uy;

/** A syntax error in the arguments, with its `position`, counted from 1. */
export class TypingError extends Error {
  constructor(message, position) {
    super(`${message} (at character ${position + 1})`);
    this.position = position + 1;
  }
}

/** Parse `1, "two", [3.0], key=None`; return `args`, an array, and `kwargs`, an object. */
export function parseArguments(text) {
  return new Reader(text).arguments();
}

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  arguments() {
    const args = [];
    const kwargs = Object.create(null); // without a prototype, so that __proto__ is an ordinary name
    this.skip();
    while (this.at < this.text.length) {
      const start = this.at;
      const name = this.match(/([\p{L}_][\p{L}\p{N}_]*)\s*=(?!=)/uy);
      if (name) {
        if (name[1] in kwargs) this.fail(`${name[1]} is given twice`, start);
        kwargs[name[1]] = this.value();
      } else {
        if (Object.keys(kwargs).length) this.fail("A positional argument follows a keyword argument", start);
        args.push(this.value());
      }
      this.skip();
      if (this.at < this.text.length) this.expect(",", "A comma between the arguments is missing");
      this.skip();
    }
    return { args, kwargs };
  }

  value() {
    this.skip();
    const start = this.at;
    const character = this.text[start];
    if (character === undefined) this.fail("A value is missing");
    if (character === "[") return this.items("]").values;
    if (character === "(") return this.parentheses();
    if (character === "{") return this.object();
    if (character === '"' || character === "'") return this.string();
    const signed = this.match(/([-+]?)(inf|Infinity|nan|NaN)\b/y);
    if (signed) return signed[1] === "-" ? -CONSTANTS.get(signed[2]) : CONSTANTS.get(signed[2]);
    const number = this.match(NUMBER);
    if (number) return this.number(number[0], start);
    const name = this.match(NAME)?.[0];
    if (CONSTANTS.has(name)) return CONSTANTS.get(name);
    if (name) this.fail(`${name} is no value; a text is written in quotes: "${name}"`, start);
    return this.fail(`${character} cannot begin a value`, start);
  }

  number(text, start) {
    const digits = text.replaceAll("_", "");
    if (/^[\p{L}\p{N}_.]/u.test(this.text.slice(this.at))) this.fail("This number is not written as one", start);
    if (/^[-+]?0[xob]/i.test(digits)) {
      const size = BigInt(digits.replace(/^[-+]/, ""));
      return safe(digits.startsWith("-") ? -size : size);
    }
    if (/[.e]/i.test(digits)) return new Float(Number(digits));
    if (/^[-+]?0\d*[1-9]/.test(digits)) this.fail("A number does not begin with 0", start);
    return safe(BigInt(digits.replace("+", "")));
  }

  string() {
    const [start, quote] = [this.at, this.text[this.at]];
    let result = "";
    for (this.at += 1; this.text[this.at] !== quote;) {
      if (this.at >= this.text.length) this.fail(`The text that begins here has no ${quote} at its end`, start);
      if (this.text[this.at] !== "\\") result += this.text[this.at++];
      else result += this.escape();
    }
    this.at += 1;
    return result;
  }

  escape() {
    const start = this.at;
    const code = this.match(/\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8}))/y);
    if (code) {
      const point = Number.parseInt(code[1] ?? code[2] ?? code[3], 16);
      return point > 0x10ffff ? this.fail("There is no such character", start) : String.fromCodePoint(point);
    }
    const character = this.text[start + 1];
    this.at += 2;
    if (character === undefined || /[xuU]/.test(character)) this.fail("This escape sequence is not complete", start);
    if (character in ESCAPES) return ESCAPES[character];
    return `'"\\/`.includes(character) ? character : `\\${character}`;
  }

  /** Return the values up to a closing bracket, and true if there was a comma. */
  items(end) {
    const start = this.at++;
    const values = [];
    let hasComma = false;
    for (this.skip(); this.text[this.at] !== end; this.skip()) {
      if (this.at >= this.text.length) this.fail(`The ${this.text[start]} is not closed`, start);
      values.push(this.value());
      this.skip();
      if (this.text[this.at] === end || this.at >= this.text.length) continue;
      this.expect(",", `A comma or ${end} is missing`);
      hasComma = true;
    }
    this.at += 1;
    return { values, hasComma };
  }

  parentheses() {
    const { values, hasComma } = this.items(")");
    return values.length === 1 && !hasComma ? values[0] : values; // a tuple is sent as a list
  }

  object() {
    const start = this.at++;
    const entries = [];
    for (this.skip(); this.text[this.at] !== "}"; this.skip()) {
      if (this.at >= this.text.length) this.fail("The { is not closed", start);
      const keyStart = this.at;
      const key = this.value();
      if (key !== null && typeof key === "object" && !(key instanceof Float))
        this.fail("This cannot be a key", keyStart);
      this.skip();
      if (",}".includes(this.text[this.at])) this.fail("A set cannot be sent; write a list, in [ ]", start);
      this.expect(":", "The colon after the key is missing");
      entries.push([String(key), this.value()]);
      this.skip();
      if (this.text[this.at] !== "}" && this.at < this.text.length) this.expect(",", "A comma or } is missing");
    }
    this.at += 1;
    return Object.fromEntries(entries);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  skip() {
    this.match(/\s*/y);
  }

  expect(character, message) {
    if (this.text[this.at] !== character) this.fail(message);
    this.at += 1;
  }

  fail(message, position = this.at) {
    throw new TypingError(message, position);
  }
}

const safe = (integer) => (Number.isSafeInteger(Number(integer)) ? Number(integer) : integer);
