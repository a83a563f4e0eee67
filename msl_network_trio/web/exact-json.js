/**
 * JSON as Python writes and reads it: with bare NaN and Infinity, and with integers of any size, for which
 * JSON.parse would give another number. Here those that a number cannot hold are BigInts, both ways.
 */

// Begins texts that stand for numbers while JSON.parse or JSON.stringify is at work; nobody else can know it.
const MARK = `exactly ${[...crypto.getRandomValues(new Uint32Array(4))].join(".")} `;

const typeOf = (value) => Object.prototype.toString.call(value).slice(8, -1);

/** A number that Python is to read as a float also if it is whole, such as 1.0. */
export class Float extends Number {
  toString() {
    return Number.isInteger(Number(this)) ? Number(this).toExponential() : String(Number(this));
  }
}

/** Read JSON. Throws a SyntaxError if it is none. */
export function parse(text) {
  if (!/(?:^|[^\d.])\d{16}|NaN|Infinity/.test(text)) return JSON.parse(text);
  const pieces = [];
  let [done, isInText] = [0, false];
  // A pattern that matches a text as a whole would exhaust the stack when it is long.
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

/** Write JSON. Throws a TypeError if there is something that has no JSON form, instead of leaving it out. */
export function stringify(value) {
  const encode = (key, item) => {
    if (/\p{Surrogate}/u.test(key)) throw new TypeError("A key is not Unicode");
    const isUsual = Number.isSafeInteger(item) ? !Object.is(item, -0) : Number.isFinite(item) && item % 1 !== 0;
    if (isUsual) return item; // a number that JSON.stringify gets right
    if (typeof item === "string" && /\p{Surrogate}/u.test(item)) throw new TypeError("A text is not Unicode");
    if (ArrayBuffer.isView(item) && item.length >= 0) return Array.from(item);
    if (/^(Null|Boolean|String|Array|Object)$/.test(typeOf(item)) || (item === undefined && key)) return item;
    if (!/^(Number|BigInt)$/.test(typeOf(item))) throw new TypeError(`A ${typeOf(item)} is not JSON serializable`);
    if (Object.is(Number(item), -0)) return `${MARK}-0.0`;
    // A number with all its digits would be an integer for Python, and another one.
    return `${MARK}${typeof item === "number" ? new Float(item) : item}`;
  };
  return JSON.stringify(value, encode).replaceAll(new RegExp(`"${MARK}([^"]*)"`, "g"), "$1");
}
