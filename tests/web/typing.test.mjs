import assert from "node:assert/strict";
import test from "node:test";
import { pathToFileURL } from "node:url";

const load = (name) => import(pathToFileURL(`${process.env.MODULES}/${name}`));
const { parseArguments, TypingError } = await load("literals.js");
const { stringify } = await load("exact-json.js");
const { cut, formatArguments, isSignature, parameters, pretty, told, visible, visibleLines } = await load("format.js");

for (const [typed, args, kwargs] of [
  ["", "[]", "{}"],
  [" 1, -2 ,+3, ", "[1,-2,3]", "{}"],
  ["1.0, .5, 5., 1e3, -0.0", "[1e+0,0.5,5e+0,1e+3,-0.0]", "{}"],
  ["1_000, 0xff, 0b11, -0o17, 12345678901234567890", "[1000,255,3,-15,12345678901234567890]", "{}"],
  ["nan, -inf, Infinity, NaN", "[NaN,-Infinity,Infinity,NaN]", "{}"],
  ["None, null, True, true, False, false", "[null,null,true,true,false,false]", "{}"],
  [String.raw`'it\'s', "\u00e9\x41\n\\\d\/"`, String.raw`["it's","éA\n\\\\d/"]`, "{}"],
  ["[1, (2,), (3), (), []], ((1, 2), 3)", "[[1,[2],3,[],[]],[[1,2],3]]", "{}"],
  ["{'a': None, \"b\": [{}], 1: 2, None: 3}", '[{"1":2,"a":null,"b":[{}],"null":3}]', "{}"],
  ["1, x=2, länge = 'm', __proto__=3", "[1]", '{"x":2,"länge":"m","__proto__":3}'],
]) {
  test(`arguments as a person types them: ${typed}`, () => {
    const call = parseArguments(typed);
    assert.equal(stringify(call.args), args);
    assert.equal(stringify(call.kwargs), kwargs);
  });
}

for (const [typed, message, position] of [
  ["1, foo", /foo is no value; a text is written in quotes: "foo"/, 4],
  ["1 2", /comma between the arguments/, 3],
  ["[1, 2", /\[ is not closed/, 1],
  ["[1 2]", /comma or \]/, 4],
  ["{1, 2}", /set cannot be sent/, 1],
  ["{'a' 1}", /colon/, 6],
  ["{[1]: 2}", /cannot be a key/, 2],
  ["{'a': 1", /\{ is not closed/, 1],
  ["'abc", /no ' at its end/, 1],
  [String.raw`"a\u12"`, /escape/, 3],
  ["x=1, 2", /positional argument/, 6],
  ["x=1, x=2", /x is given twice/, 6],
  ["x=", /value is missing/, 3],
  ["1,,2", /, cannot begin a value/, 3],
  ["007", /does not begin with 0/, 1],
  ["1abc", /not written as one/, 1],
  ["1.2.3", /not written as one/, 1],
  ["print('x')", /print is no value/, 1],
  ["<b>", /< cannot begin/, 1],
]) {
  test(`a mistake is told with its place: ${typed}`, () => {
    assert.throws(
      () => parseArguments(typed),
      (error) => error instanceof TypingError && message.test(error.message) && error.position === position,
    );
  });
}

test("the names of parameters are taken from any signature, also from nonsense", () => {
  for (const [signature, names] of [
    ["()", ""],
    [
      "(x: int | float, y: Union[int, float] = 2, *args, z='a,b)', **kw) -> Dict[str, int]",
      "x, y=2, *args, z='a,b)', **kw",
    ],
    ['(a=(1, 2), /, *, b="=")', 'a=(1, 2), b="="'],
    ["(double x, const char* name) : bool", "double x, const char* name"],
    ["(((", "("],
    ["(x", ""],
    [`(${"x, ".repeat(10000)})`, ""],
  ]) {
    assert.equal(parameters(signature), names, signature.slice(0, 80));
  }
});

test("a signature is told from a value", () => {
  assert.deepEqual(["(x)", "() -> int", "volt", "(", 5, null, ["()"]].map(isSignature), [
    true,
    true,
    false,
    false,
    false,
    false,
    false,
  ]);
});

test("values are shown on one line if they fit, and else so that they can be read", () => {
  assert.equal(
    pretty({ a: [1, NaN, null], b: 10n ** 30n, c: 'x"' }),
    '{"a": [1, NaN, null], "b": 1000000000000000000000000000000, "c": "x\\""}',
  );
  const numbers = Array.from({ length: 40 }, (_, index) => index * 1000);
  const lines = pretty({ numbers, deep: [{ text: "y".repeat(70) }] }).split("\n");
  assert.ok(lines.slice(0, 8).every((line) => line.length <= 80));
  assert.equal(
    JSON.stringify(JSON.parse(lines.join(""))),
    JSON.stringify({ numbers, deep: [{ text: "y".repeat(70) }] }),
  );
  assert.equal(pretty([]), "[]");
});

test("calls and facts are shown on one line", () => {
  assert.equal(formatArguments([1, "a"], { x: [2], y: null }), '1, "a", x=[2], y=null');
  assert.equal(cut("abcdef", 3), "abc…");
  assert.equal(told({ toString: 1 }), '{"toString": 1}');
});

test("control characters of others are shown escaped, and nothing else is", () => {
  const text = "a\x1b[2J\x07\x9b\x7f\u202eb\u2066\u2028c\ud800d\r\n\te\u00e9\u{1f600}";
  const escaped = String.raw`a\x1b[2J\x07\x9b\x7f\u202eb\u2066\u2028c\ud800d\r`;
  assert.equal(visible(text), `${escaped}${String.raw`\n\te`}\u00e9\u{1f600}`);
  assert.equal(visibleLines(text), `${escaped}\n\te\u00e9\u{1f600}`);
  assert.equal(told("lab\n[1]"), String.raw`lab\n[1]`);
  for (const shown of [told({ "\x9b": "\u202e" }), pretty(["\x9b"]), formatArguments(["\u2028"], { x: "\x7f" })]) {
    assert.doesNotMatch(shown, /[^ -~]/);
  }
});
