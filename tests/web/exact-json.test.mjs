import assert from "node:assert/strict";
import test from "node:test";
import { pathToFileURL } from "node:url";

const { parse, stringify } = await import(pathToFileURL(`${process.env.MODULES}/exact-json.js`));

test("numbers that JSON.parse changes or refuses are read as they are", () => {
  const text = "[NaN, Infinity, -Infinity, 12345678901234567890, -9007199254740993, 9007199254740991, 1e400, 0.1]";
  const values = [NaN, Infinity, -Infinity, 12345678901234567890n, -9007199254740993n, 9007199254740991, Infinity, 0.1];
  assert.deepEqual(parse(text), values);
});

test("texts and keys that look like such numbers stay texts", () => {
  const text = '{"NaN": "-Infinity", "a\\"12345678901234567890": ["12345678901234567890", "\\\\", NaN, "\\\\\\"NaN"]}';
  const value = { NaN: "-Infinity", 'a"12345678901234567890': ["12345678901234567890", "\\", NaN, '\\"NaN'] };
  assert.deepEqual(parse(text), value);
});

test("a long text with escapes is read beside NaN", () => {
  const long = `${"a".repeat(10_000_000)}${'\\"\n'.repeat(1000)}`;
  assert.deepEqual(parse(`[NaN, ${JSON.stringify(long)}]`), [NaN, long]);
});

test("what is no JSON is refused, with and without such numbers", () => {
  for (const text of [
    "",
    "[",
    "nan",
    "NaN NaN",
    "[-NaN]",
    '"NaN',
    '{"a": Infinity',
    "[12345678901234567890 1]",
    "Infinity1",
  ]) {
    assert.throws(() => parse(text), SyntaxError, text);
  }
});

test("numbers are written so that Python reads the same ones", () => {
  const values = [1, -0, NaN, -Infinity, 2n ** 80n, 2 ** 64, -(2 ** 53), 9007199254740991, 1e300, 0.1, 1.5e-7];
  const text = "[1,-0.0,NaN,-Infinity,1208925819614629174706176,1.8446744073709552e+19,-9.007199254740992e+15,";
  assert.equal(stringify(values), `${text}9007199254740991,1e+300,0.1,1.5e-7]`);
});

test("arrays of numbers, dates and undefined members are written as JavaScript does it", () => {
  const value = { a: new Float64Array([1.5, NaN]), b: new BigInt64Array([2n]), c: new Date(0), d: undefined, e: null };
  assert.equal(stringify(value), '{"a":[1.5,NaN],"b":[2],"c":"1970-01-01T00:00:00.000Z","e":null}');
});

test("what has no JSON form is refused instead of left out", () => {
  const bad = [
    undefined,
    () => 1,
    Symbol("x"),
    new Map(),
    new Set(),
    "\ud800",
    { "\udc00": 1 },
    [() => 1],
    new DataView(new ArrayBuffer(1)),
  ];
  for (const value of bad) assert.throws(() => stringify(value), TypeError);
});

test("what was written is read again", () => {
  const value = { "": [1, 'é😀\u2028\0"\\', { deep: [[[-5n * 10n ** 30n]]] }], __proto: null, exactly: "exactly NaN" };
  assert.deepEqual(parse(stringify(value)), value);
});
