/**
 * JSON as Python reads and writes it, with NaN, Infinity and integers of any size. JSON.parse would round large
 * integers; here they are BigInts, both ways.
 */

// Prefix of strings that stand for numbers during JSON.parse and JSON.stringify; random, so that no data has it.
const MARK = `exactly ${[...crypto.getRandomValues(new Uint32Array(4))].join(".")} `;

const typeOf = (value) => Object.prototype.toString.call(value).slice(8, -1);

/** A number that Python must read as a float even if it is whole, such as 1.0. */
export class Float extends Number {
  toString() {
    return Number.isInteger(Number(this)) ? Number(this).toExponential() : String(Number(this));
  }
}

/** Parse JSON. Throws a SyntaxError if the text is invalid. */
export function parse(text) {
  if (!/(?:^|[^\d.])\d{16}|NaN|Infinity/.test(text)) return JSON.parse(text);
  const pieces = [];
  let [done, isInText] = [0, false];
  // A pattern that matches a whole string would exhaust the stack on long strings.
  for (const { 0: token, index } of text.matchAll(/\\.|"|NaN|-?(?:Infinity|\d[\d.eE+-]*)/gs)) {
    if (token === '"') {
      isInText = !isInText;
    } else if (!isInText && !/^-?\d{1,15}$|[.eE]/.test(token)) {
      pieces.push(text.slice(done, index), `"${MARK}${token}"`);
      done = index + token.length;
    }
  }
  return JSON.parse(pieces.join("") + text.slice(done), (_, value) => {
    if (typeof value !== "string" || !value.startsWith(MARK)) return value;
    const digits = value.slice(MARK.length);
    return /\d/.test(digits) && !Number.isSafeInteger(Number(digits)) ? BigInt(digits) : Number(digits);
  });
}

/** Serialize to JSON. Throws a TypeError for a value that JSON.stringify would silently leave out. */
export function stringify(value) {
  const encode = (key, item) => {
    if (/\p{Surrogate}/u.test(key)) throw new TypeError("A key is not Unicode");
    const isUsual = Number.isSafeInteger(item) ? !Object.is(item, -0) : Number.isFinite(item) && item % 1 !== 0;
    if (isUsual) return item; // JSON.stringify writes it correctly
    if (typeof item === "string" && /\p{Surrogate}/u.test(item)) throw new TypeError("A text is not Unicode");
    if (ArrayBuffer.isView(item) && item.length >= 0) return Array.from(item);
    if (/^(Null|Boolean|String|Array|Object)$/.test(typeOf(item)) || (item === undefined && key)) return item;
    if (!/^(Number|BigInt)$/.test(typeOf(item))) throw new TypeError(`A ${typeOf(item)} is not JSON serializable`);
    if (Object.is(Number(item), -0)) return `${MARK}-0.0`;
    // Written with all its digits, a large float would be an integer for Python, with another value.
    return `${MARK}${typeof item === "number" ? new Float(item) : item}`;
  };
  return JSON.stringify(value, encode).replaceAll(new RegExp(`"${MARK}([^"]*)"`, "g"), "$1");
}
