import assert from "node:assert/strict";
import test, { afterEach, beforeEach, mock } from "node:test";
import { pathToFileURL } from "node:url";

import { FakeSocket, settled } from "./manager.mjs";

globalThis.WebSocket = FakeSocket;
const network = await import(pathToFileURL(`${process.env.MODULES}/msl-network.js`));
const { Client } = network;
const connect = (...args) => expected(network.connect(...args));

const GONE = `KeyError: "the 'Gone' Service is not connected to Manager[lab:1]"`;
let clients;

beforeEach(() => {
  FakeSocket.all.length = 0;
  clients = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
});

afterEach(async () => {
  for (const client of clients) client.close();
  await settled();
  mock.timers.reset();
});

/** A promise whose rejection is expected, although nobody may look at it at once. */
function expected(promise) {
  promise.catch(() => {});
  return promise;
}

/** An object whose methods return promises like that. */
function expecting(target) {
  const get = (_, name) => {
    const value = target[name];
    if (typeof value !== "function") return value;
    return (...args) => {
      const result = value.apply(target, args);
      return result instanceof Promise ? expected(result) : result;
    };
  };
  return new Proxy(target, { get });
}

/** Let seconds pass. */
async function pass(seconds) {
  mock.timers.tick(seconds * 1000);
  await settled();
}

/** Return a client that is connected, and its side of the socket. */
async function connected(options, services) {
  const opening = connect("ws://lab/msl", options);
  const socket = FakeSocket.last;
  await socket.welcome(services);
  const client = await opening;
  clients.push(client);
  return [expecting(client), socket];
}

/** Return a link with a Service. */
async function linked(client, socket, service = "Echo", options = {}) {
  const linking = client.link(service, options);
  await socket.answer({ attributes: {}, address: "lab:9" }, socket.find("link"));
  return linking;
}

/** What became of a promise: ["ok", result], ["error", error], or ["pending"]. */
async function fate(promise) {
  return Promise.race([
    promise.then(
      (result) => ["ok", result],
      (error) => ["error", error],
    ),
    settled().then(() => ["pending"]),
  ]);
}

async function failure(promise, Class, pattern, mayHaveRun) {
  const [what, error] = await fate(promise);
  assert.equal(what, "error", String(error));
  assert.equal(error.constructor, Class, String(error));
  assert.equal(error.name, Class.name);
  assert.match(error.message, pattern);
  if (mayHaveRun !== undefined) assert.equal(error.mayHaveRun, mayHaveRun, error.message);
  return error;
}

// ---- connecting ----

test("a client says who it is and is connected when the Manager answers something", async () => {
  const opening = connect("ws://lab/msl", { name: "C" });
  const socket = FakeSocket.last;
  assert.equal(socket.protocol, "msl-network.v1");
  await socket.ask("identity");
  const [identity, barrier] = socket.sent;
  assert.equal(identity.result.type, "client");
  assert.equal(identity.result.name, "C");
  assert.deepEqual([barrier.service, barrier.attribute, barrier.error], ["Manager", "unlink", false]);
  assert.deepEqual(await fate(opening), ["pending"]);
  await socket.answer(true);
  const client = await opening;
  clients.push(client);
  assert.deepEqual([client.state, client.manager, client.name], ["connected", "Manager[lab:1]", "C[lab:2]"]);
});

test("the password of the Manager and that of a user are not mixed up", async () => {
  const opening = connect("ws://lab/msl", { passwordManager: "pm", username: "alice", password: "pw" });
  const socket = FakeSocket.last;
  await socket.ask("password", "Manager[lab:1]");
  assert.deepEqual(socket.request, { error: false, requester: "Manager[lab:1]", result: "pm", uid: "" });
  await socket.ask("username", "Manager[lab:1]");
  assert.equal(socket.request.result, "alice");
  await socket.ask("password", "alice");
  assert.equal(socket.request.result, "pw");
  await socket.welcome();
  clients.push(await opening);
});

test("a person is asked without a time limit, and not again when the client connects again", async () => {
  let answer;
  const questions = [];
  const ask = (question) => {
    questions.push(question);
    return new Promise((resolve) => (answer = resolve));
  };
  const opening = connect("ws://lab/msl", { ask });
  await FakeSocket.last.ask("password", "Manager[lab:1]");
  await pass(1000);
  assert.deepEqual(await fate(opening), ["pending"]);
  answer("secret");
  await settled();
  assert.equal(FakeSocket.last.request.result, "secret");
  await FakeSocket.last.welcome();
  clients.push(await opening);
  FakeSocket.last.close();
  await settled();
  await pass(1);
  await FakeSocket.last.ask("password", "Manager[lab:1]");
  assert.equal(FakeSocket.last.request.result, "secret");
  assert.deepEqual(questions, [{ key: "passwordManager", about: "Manager[lab:1]", manager: "Manager[lab:1]" }]);
});

test("the clock goes on after the person has answered", async () => {
  const opening = connect("ws://lab/msl", { ask: () => "secret" });
  await FakeSocket.last.ask("password", "Manager[lab:1]");
  await settled();
  await pass(11);
  await failure(opening, network.ConnectError, /does not answer in time/);
});

for (const [what, ask] of Object.entries({
  "nobody is asked": undefined,
  "nothing is answered": () => "",
  "asking fails": () => Promise.reject(new Error("no terminal")),
  "asking raises": () => {
    throw new Error("no terminal");
  },
})) {
  test(`a question that is not answered ends the attempt: ${what}`, async () => {
    mock.method(console, "error", () => {});
    const opening = connect("ws://lab/msl", { ask });
    await FakeSocket.last.ask("password", "Manager[lab:1]");
    await settled();
    await failure(opening, network.AuthenticationError, /asks for passwordManager/, false);
    assert.deepEqual(FakeSocket.last.sent, []); // an empty answer makes a Manager fall silent
    mock.restoreAll();
  });
}

test("a rejection is told, also one that comes after the identity", async () => {
  const early = connect("ws://lab/msl");
  await FakeSocket.last.fail("ValueError: 'pc' is not a trusted hostname", { requester: "Manager[lab:1]" });
  FakeSocket.last.close();
  await settled();
  await failure(early, network.AuthenticationError, /not a trusted hostname/);
  const late = connect("ws://lab/msl");
  await FakeSocket.last.ask("identity");
  await FakeSocket.last.fail("KeyError: 'name'", { requester: "Manager[lab:1]" });
  FakeSocket.last.close();
  await settled();
  await failure(late, network.AuthenticationError, /KeyError: 'name'/);
});

test("a Manager that stalls in any phase ends in an error", async () => {
  for (const begin of [() => {}, (socket) => socket.ask("identity"), (socket) => socket.say({ hello: 1 })]) {
    const opening = connect("ws://lab/msl", { timeout: 5 });
    await begin(FakeSocket.last);
    await pass(4.9);
    assert.deepEqual(await fate(opening), ["pending"]);
    await pass(0.2);
    await failure(opening, network.ConnectError, /ws:\/\/lab\/msl.*answer/);
    assert.ok(FakeSocket.last.isClosed);
  }
});

test("without a time limit it waits", async () => {
  const client = expecting(new Client("ws://lab/msl", { timeout: 0 }));
  const opening = client.open();
  await pass(100_000);
  assert.deepEqual(await fate(opening), ["pending"]);
  client.close();
  await failure(opening, network.ConnectError, /closed by this client/);
});

test("garbage ends the connection, with a quotation", async () => {
  for (const garbage of ["<html>", "null", "5 5", '"']) {
    const opening = connect("ws://lab/msl");
    await FakeSocket.last.say(garbage);
    await failure(opening, network.ConnectError, new RegExp(`no Manager sends ${garbage}`));
  }
});

test("what has no WebSocket URL is an error at once", async () => {
  globalThis.WebSocket = class {
    constructor() {
      throw new SyntaxError("no URL");
    }
  };
  await assert.rejects(connect("nonsense"), SyntaxError);
  globalThis.WebSocket = FakeSocket;
});

// ---- requests ----

test("replies find their requests in any order", async () => {
  const [client, socket] = await connected();
  const link = client.link("Math");
  await socket.answer({ attributes: {}, address: "lab:9" });
  const math = await link;
  const [one, two] = [math.add(1, 2), math.request("add", [3], { y: 4 })];
  await settled();
  const [first, second] = socket.sent.slice(-2);
  assert.deepEqual(first, {
    args: [1, 2],
    attribute: "add",
    error: false,
    kwargs: {},
    service: "Math",
    uid: first.uid,
  });
  assert.deepEqual([second.args, second.kwargs], [[3], { y: 4 }]);
  await socket.answer(7, second);
  await socket.answer(3, first);
  assert.deepEqual([await one, await two], [3, 7]);
});

test("the uid of a request cannot be guessed from others", async () => {
  const [client, socket] = await connected();
  for (let i = 0; i < 200; i++) client.request("Echo", "same").catch(() => {});
  await settled();
  const uids = socket.sent.slice(-200).map(({ uid }) => uid);
  assert.equal(new Set(uids).size, 200);
  for (const length of [4, 8]) {
    // Neither a beginning nor an end that all of them share, and none that counts up.
    assert.ok(new Set(uids.map((uid) => uid.slice(0, length))).size > 190);
    assert.ok(new Set(uids.map((uid) => uid.slice(-length))).size > 190);
  }
});

test("integers beyond 2**53 and NaN arrive as they were sent", async () => {
  const [client, socket] = await connected();
  const reply = client.request("Echo", "same");
  await settled();
  const { uid } = socket.request;
  await socket.say(`{"error": false, "requester": "C", "result": [12345678901234567890, NaN], "uid": "${uid}"}`);
  assert.deepEqual(await reply, [12345678901234567890n, NaN]);
});

test("what a Service raises is raised", async () => {
  const [client, socket] = await connected();
  const reply = client.request("Echo", "fail");
  await settled();
  await socket.fail("ValueError: bad\nworse", { uid: socket.request.uid, traceback: ["line 1", "line 2"] });
  const error = await failure(reply, network.RemoteError, /^ValueError: bad\nworse$/, true);
  assert.deepEqual([error.typeName, error.traceback, error.service], ["ValueError", ["line 1", "line 2"], "Echo"]);
  const linking = client.link("Nope");
  await settled();
  await socket.fail("KeyError: ...", { uid: socket.request.uid });
  await failure(linking, network.ManagerError, /KeyError/);
});

test("a request without a JSON form, or that would end the connection, is refused and nothing is sent", async () => {
  const [client, socket] = await connected();
  const before = socket.sent.length;
  await failure(client.request("Echo", "same", [() => 1]), TypeError, /Function is not JSON/);
  await failure(client.request("Echo", "__disconnect__"), TypeError, /close\(\)/);
  assert.equal(socket.sent.length, before);
});

test("a request times out, and a late reply to it is dropped", async () => {
  const [client, socket] = await connected({ requestTimeout: 60 });
  const reply = client.request("Echo", "slow", [], {}, { timeout: 2 });
  const patient = client.request("Echo", "slow");
  await settled();
  const [slow] = socket.sent.slice(-2);
  await pass(2);
  await failure(reply, network.ReplyTimeout, /No reply in 2 s; Echo.slow may have been executed/, true);
  assert.deepEqual(await fate(patient), ["pending"]);
  await socket.answer("late", slow);
  await socket.answer("never asked", { uid: "forged" });
  await socket.answer("in time");
  assert.equal(await patient, "in time");
});

test("a link can be awaited, printed and turned to JSON without calling the Service", async () => {
  const [client, socket] = await connected();
  const link = client.link("Echo");
  await socket.answer({ attributes: {}, address: "lab:9" });
  const echo = await link;
  const before = socket.sent.length;
  assert.match(String(echo), /object/);
  JSON.stringify({ echo: { ...echo, client: 0 } });
  assert.equal(echo._private, undefined);
  assert.deepEqual(Object.keys(echo), [
    ...["service", "address", "request", "unlink", "acquireLock", "releaseLock", "onNotification", "onGap"],
    "identity",
  ]);
  assert.equal(socket.sent.length, before);
});

// ---- answers without a uid ----

test("the refusal of the only request to a Service is its own, and it surely did not run", async () => {
  const [client, socket] = await connected();
  const [gone, other] = [client.request("Gone", "x"), client.request("Echo", "x")];
  await settled();
  await socket.fail(GONE);
  await failure(gone, network.ServiceLost, /not connected.*Gone.x was not executed/, false);
  assert.deepEqual(await fate(other), ["pending"]);
});

test("the refusal of one of several requests fails all of them, and the further ones are swallowed", async () => {
  const [client, socket] = await connected();
  const refused = [1, 2, 3].map((n) => client.request("Gone", "x", [n]));
  await settled();
  await socket.fail(GONE);
  for (const request of refused) await failure(request, network.ServiceLost, /may have been executed/, true);
  const barrier = socket.request;
  assert.equal(barrier.attribute, "unlink");
  const next = client.request("Gone", "x", [4]);
  await settled();
  await socket.fail(GONE); // of the second one
  assert.deepEqual(await fate(next), ["pending"]);
  await socket.answer(true, barrier);
  await socket.fail(GONE);
  await failure(next, network.ServiceLost, /was not executed/, false);
});

test("a request that timed out counts among those that may have been refused", async () => {
  const [client, socket] = await connected();
  const [early, late] = [client.request("Gone", "x", [], {}, { timeout: 1 }), client.request("Gone", "y")];
  await pass(1);
  await failure(early, network.ReplyTimeout, /x/);
  await socket.fail(GONE); // of the first one
  await failure(late, network.ServiceLost, /y may have been executed/, true);
});

test("names with quotes are recognised in refusals", async () => {
  const [client, socket] = await connected();
  for (const [name, text] of [
    ["it's", `KeyError: 'the "it\\'s" Service is not connected to Manager[lab:1]'`],
    ['a"b', `KeyError: 'the \\'a"b\\' Service is not connected to Manager[lab:1]'`],
    [`'"`, `KeyError: 'the \\'\\\\\\'"\\' Service is not connected to Manager[lab:1]'`],
  ]) {
    const request = client.request(name, "x");
    await settled();
    await socket.fail(text);
    await failure(request, network.ServiceLost, /not connected/, false);
    await socket.answer(true); // to the barrier
  }
});

test("what our own Manager tells with a uid is ServiceLost too", async () => {
  const [client, socket] = await connected();
  const refused = client.request("Gone", "x");
  await settled();
  await socket.fail(GONE, { uid: socket.request.uid });
  await failure(refused, network.ServiceLost, /was not executed/, false);
  const gone = client.request("Gone", "x");
  await settled();
  const text = "ConnectionError: the 'Gone' Service has gone from Manager[lab:1], the request may have been executed";
  await socket.fail(text, { uid: socket.request.uid });
  await failure(gone, network.ServiceLost, /has gone/, true);
});

test("a request that is open when the Manager ends fails as the connection does", async () => {
  const [client, socket] = await connected();
  const open = client.request("Echo", "x");
  await settled();
  const text = "ConnectionAbortedError: Manager[lab:1] is shutting down, the request may have been executed";
  await socket.fail(text, { uid: socket.request.uid });
  await failure(open, network.ConnectionLost, /is shutting down/, true);
});

test("nothing is sent between an admin request and its answer, which carries no uid", async () => {
  const [client, socket] = await connected({ username: "alice", password: "pw" });
  const [before, admin] = [client.request("Echo", "a"), client.request("Manager", "port")];
  const [held, second] = [client.request("Echo", "b"), client.request("Manager", "users")];
  await settled();
  assert.equal(socket.request.attribute, "port");
  await socket.ask("username", "Manager[lab:1]");
  assert.equal(socket.request.result, "alice");
  await socket.ask("password", "alice");
  assert.equal(socket.request.result, "pw");
  await socket.answer("of the Service", socket.sent.at(-4)); // a reply to what was sent before
  assert.equal(await before, "of the Service");
  await socket.say({ error: false, requester: "C[lab:2]", result: 1875, uid: "" });
  assert.equal(await admin, 1875);
  const [b, users] = socket.sent.slice(-2);
  assert.deepEqual([b.attribute, users.attribute], ["b", "users"]);
  await socket.say({
    error: true,
    message: "ValueError: no",
    requester: "C[lab:2]",
    result: null,
    traceback: [],
    uid: "",
  });
  await failure(second, network.ManagerError, /ValueError: no/);
  await socket.answer("b", b);
  assert.equal(await held, "b");
});

test("a refusal while an admin request is open is not taken for its answer", async () => {
  const [client, socket] = await connected();
  const gone = [client.request("Gone", "x"), client.request("Gone", "x")];
  const admin = client.request("Manager", "port");
  await settled();
  await socket.fail(GONE);
  await socket.fail(GONE);
  for (const request of gone) await failure(request, network.ServiceLost, /Gone/, true);
  assert.deepEqual(await fate(admin), ["pending"]);
  assert.equal(socket.request.attribute, "port"); // the barrier has to wait
  await socket.answer(1875); // with a uid, as our own Manager does
  assert.equal(await admin, 1875);
  assert.equal(socket.request.attribute, "unlink");
});

test("a login question that nobody answers is answered with nothing, so that the others can go on", async () => {
  const [client, socket] = await connected();
  const admin = client.request("Manager", "port", [], {}, { timeout: 1 });
  await pass(1);
  await failure(admin, network.ReplyTimeout, /port/, true);
  const held = client.request("Echo", "x");
  await settled();
  await socket.ask("username", "Manager[lab:1]");
  assert.equal(socket.request.result, "");
  await socket.fail("ValueError: You must be an administrator to send this request to the Manager");
  assert.equal(socket.request.attribute, "x");
  await socket.answer(1);
  assert.equal(await held, 1);
});

test("a person who is asked to log in is given time, and what waits for that too", async () => {
  let answer;
  const [client, socket] = await connected({ ask: () => new Promise((resolve) => (answer = resolve)) });
  const admin = client.request("Manager", "port", [], {}, { timeout: 1 });
  await settled();
  await socket.ask("username", "Manager[lab:1]");
  await pass(500);
  assert.equal(client.state, "connected");
  assert.deepEqual(await fate(admin), ["pending"]);
  const held = client.request("Echo", "x", [], {}, { timeout: 5 });
  await pass(5);
  await failure(held, network.ReplyTimeout, /was not executed/, false);
  answer("alice");
  await settled();
  assert.equal(socket.request.result, "alice");
  await socket.say({ error: false, requester: "C[lab:2]", result: 5, uid: "" });
  assert.equal(await admin, 5);
  assert.ok(!socket.sent.some((request) => request.service === "Echo"), "what timed out is not sent any more");
});

test("lines that nobody asked for change nothing", async () => {
  mock.method(console, "warn", () => {});
  const [client, socket] = await connected();
  const reply = client.request("Echo", "x");
  await settled();
  const request = socket.request;
  await socket.say({ error: false, requester: "C[lab:2]", result: 1, uid: "" });
  await socket.ask("username", "Manager[lab:1]");
  await socket.ask("nonsense");
  await socket.fail(`KeyError: "the 'Other' Service is not connected to Manager[lab:1]"`);
  await socket.say({ uid: 5 });
  await socket.say("[]");
  assert.equal(socket.request, request);
  assert.equal(client.state, "connected");
  mock.restoreAll();
});

test("why the Manager ends the connection is told", async () => {
  const [client, socket] = await connected({ reconnect: false });
  const reply = client.request("Echo", "x");
  await settled();
  await socket.fail("BufferError: too much waits", { requester: "Manager[lab:1]" });
  socket.close();
  await settled();
  await failure(reply, network.ConnectionLost, /Lost .*BufferError: too much waits; Echo.x may have been/, true);
  assert.equal(client.state, "closed");
});

// ---- notifications ----

test("notifications reach the handlers of their link, in order, and a handler that raises stops nothing", async () => {
  const errors = mock.method(console, "error", () => {});
  const [client, socket] = await connected();
  const linking = client.link("Echo");
  await socket.answer({ attributes: {}, address: "lab:9" });
  const echo = await linking;
  const got = [];
  echo.onNotification(() => {
    throw new Error("a handler's own fault");
  });
  const stop = echo.onNotification(({ service, args, kwargs }) => got.push([service, args, kwargs]));
  const notify = (service, ...args) =>
    socket.say({ error: false, result: [args, { a: 1 }], service, uid: "notification" });
  await notify("Echo", 1);
  await notify("Other", 2);
  await notify("Echo", 3);
  assert.deepEqual(got, [
    ["Echo", [1], { a: 1 }],
    ["Echo", [3], { a: 1 }],
  ]);
  assert.equal(errors.mock.callCount(), 2);
  stop();
  await notify("Echo", 4);
  assert.equal(got.length, 2);
  assert.equal(client.state, "connected");
  mock.restoreAll();
});

test("malformed notifications and errors disturb nothing", async () => {
  mock.method(console, "debug", () => {});
  const [client, socket] = await connected();
  const linking = client.link("Echo");
  await socket.answer({ attributes: {}, address: "lab:9" });
  const got = [];
  (await linking).onNotification((news) => got.push(news));
  for (const result of [null, 5, [], [1, 2], [[1]], [[1], null], { 0: [] }]) {
    await socket.say({ error: false, result, service: "Echo", uid: "notification" });
  }
  const reply = client.request("Echo", "x");
  await settled();
  await socket.fail({ toString: 1 }, { uid: socket.request.uid });
  await failure(reply, network.RemoteError, /an error without a text/, true);
  assert.deepEqual([client.state, got], ["connected", []]);
  mock.restoreAll();
});

test("a link that is given up while it is made again stays given up", async () => {
  const [client, socket] = await connected();
  const linking = client.link("Echo");
  await socket.answer({ attributes: {}, address: "lab:9" });
  const echo = await linking;
  await pass(10);
  await socket.answer({ services: { Echo: { address: "lab:11" } }, clients: {} });
  const link = socket.request;
  const unlinking = echo.unlink();
  await settled();
  const unlink = socket.request;
  await socket.answer({ attributes: {}, address: "lab:11" }, link);
  await socket.answer(true, unlink);
  await unlinking;
  assert.deepEqual([socket.request.attribute, socket.request === unlink], ["unlink", false]);
  await socket.answer(true);
  await pass(10);
  await socket.answer({ services: { Echo: { address: "lab:12" } }, clients: {} });
  assert.equal(socket.request.attribute, "identity");
});

// ---- the end of a connection, and the next one ----

test("when the connection is lost every open request is rejected, and told whether it may have run", async () => {
  const [client, socket] = await connected({ reconnect: false });
  const [sent, admin] = [client.request("Echo", "x"), client.request("Manager", "port")];
  const held = client.request("Echo", "y");
  await settled();
  socket.close(1006);
  await settled();
  await failure(sent, network.ConnectionLost, /no connection .code 1006.; Echo.x may have been executed/, true);
  await failure(admin, network.ConnectionLost, /port may have been executed/, true);
  await failure(held, network.ConnectionLost, /Echo.y was not executed/, false);
  assert.equal(client.state, "closed");
  await failure(client.request("Echo", "z"), network.ConnectionLost, /Not connected/, false);
});

test("what was not sent when the connection was lost is sent over the next one, in order and within its time", async () => {
  const [client, socket] = await connected();
  const admin = client.request("Manager", "port");
  const held = client.request("Echo", "held");
  socket.close(1006);
  await settled();
  await failure(admin, network.ConnectionLost, /port may have been executed/, true);
  const late = client.request("Echo", "late", [], {}, { timeout: 1e-3 });
  const waiting = client.request("Echo", "waiting");
  await pass(1);
  await failure(late, network.ReplyTimeout, /Echo.late was not executed/, false);
  await FakeSocket.last.welcome({ Echo: { address: "lab:9" } });
  const sent = FakeSocket.last.sent.filter(({ service }) => service === "Echo");
  assert.deepEqual(
    sent.map(({ attribute }) => attribute),
    ["held", "waiting"],
  );
  for (const request of sent) await FakeSocket.last.answer(request.attribute, request);
  assert.deepEqual([await held, await waiting], ["held", "waiting"]);
});

test("an idempotent request is sent again after every loss, and nothing else that may have been executed", async () => {
  const [client, socket] = await connected();
  const echo = await linked(client, socket, "Echo", { idempotent: ["read"] });
  const [read, set] = [expected(echo.read()), expected(echo.set(1))];
  const once = echo.request("set", [2], {}, { idempotent: true });
  socket.close(1006);
  await settled();
  await failure(set, network.ConnectionLost, /set may have been executed/, true);
  await pass(1);
  const next = FakeSocket.last;
  await next.welcome({ Echo: { address: "lab:10" } });
  assert.equal(next.find("read"), undefined, "it waits for the link");
  await next.answer({ attributes: {}, address: "lab:10" }, next.find("link"));
  assert.deepEqual(next.sent.filter(({ attribute }) => attribute === "set").map(({ args }) => args), [[2]]);
  await next.fail("ConnectionError: the 'Echo' Service has gone from Manager[lab:1], the request may have been executed", {
    uid: next.find("read").uid,
  });
  await next.answer(2, next.find("set"));
  assert.equal(await once, 2);
  assert.deepEqual([await fate(read), echo.address], [["pending"], null]);
  await pass(0.1);
  await next.answer({ attributes: {}, address: "lab:11" }, next.find("link"));
  assert.equal(next.sent.filter(({ attribute }) => attribute === "read").length, 2);
  await next.answer("value", next.find("read"));
  assert.equal(await read, "value");
});

test("a gap is marked in order, also for the next notification", async () => {
  const [client, socket] = await connected();
  const echo = await linked(client, socket);
  const got = [];
  echo.onNotification(({ args, gap }) => got.push([args[0], gap?.reason ?? null]));
  echo.onGap(({ reason, since, until }) => got.push([reason, until - since]));
  await socket.notify("Echo", [1]);
  await pass(1);
  socket.close(1006, "gone");
  await settled();
  await pass(1);
  const next = FakeSocket.last;
  await next.welcome({ Echo: { address: "lab:10" } });
  next.answer({ attributes: {}, address: "lab:10" }, next.find("link")); // both lines in one turn
  await next.notify("Echo", [2]);
  await next.notify("Echo", [3]);
  const reason = "Lost ws://lab/msl: gone";
  assert.deepEqual(got, [[1, null], [reason, 2], [2, reason], [3, null]]);
});

test("gaps without a notification between them are one for the next notification", async () => {
  const [client, socket] = await connected();
  const echo = await linked(client, socket);
  const gaps = [];
  let news;
  echo.onGap((gap) => gaps.push(gap));
  echo.onNotification((each) => (news = each));
  for (const address of ["lab:10", "lab:11"]) {
    await socket.notify("Manager", [], { gone: "Echo" });
    await pass(1);
    await socket.answer({ attributes: {}, address }, socket.find("link"));
  }
  await socket.notify("Echo", [1]);
  assert.equal(gaps.length, 2);
  assert.deepEqual([news.gap.since, news.gap.until], [gaps[0].since, gaps[1].until]);
});

test("a Manager that tells is believed at once, and links are made again when a Service has come", async () => {
  const [client, socket] = await connected();
  assert.deepEqual(socket.sent[0].result.follows, ["services"]);
  await socket.notify("Manager", [], { tells: ["services"] });
  const echo = await linked(client, socket);
  await socket.notify("Manager", [], { gone: "Echo" });
  assert.equal(echo.address, null);
  const waiting = expected(echo.x());
  await pass(0.1);
  await socket.fail(GONE.replace("Gone", "Echo"), { uid: socket.find("link").uid });
  await pass(5);
  const count = socket.sent.length;
  await socket.notify("Manager", [], { came: "Echo" });
  assert.deepEqual([socket.sent.length - count, socket.request.attribute], [1, "link"]);
  await socket.answer({ attributes: {}, address: "lab:10" });
  assert.equal(socket.request.attribute, "x");
  await socket.answer(5);
  assert.equal(await waiting, 5);
});

test("at a Manager that does not tell, the link that somebody uses is requested again", async () => {
  const [client, socket] = await connected();
  const echo = await linked(client, socket);
  const count = socket.sent.length;
  await pass(2);
  assert.equal(socket.sent.length, count, "nobody uses it");
  const gaps = [];
  echo.onGap(({ reason }) => gaps.push(reason));
  const open = expected(echo.x());
  await pass(2);
  await socket.answer({ attributes: {}, address: "lab:9" }, socket.find("link"));
  assert.deepEqual([gaps, await fate(open)], [[], ["pending"]]);
  await pass(2);
  await socket.answer({ attributes: {}, address: "lab:10" }, socket.find("link"));
  await failure(open, network.ServiceLost, /Echo.x may have been executed/, true);
  assert.deepEqual(gaps, ["the Service has restarted"]);
});

test("a lost lock is reported by each request until it is released or acquired again", async () => {
  const [client, socket] = await connected();
  const echo = await linked(client, socket, "Echo", { idempotent: ["read"] });
  const locking = echo.acquireLock({ shared: true });
  assert.deepEqual([socket.request.attribute, socket.request.args], ["acquire_lock", ["Echo"]]);
  assert.deepEqual(socket.request.kwargs, { shared: true });
  await socket.answer(["C"]);
  assert.deepEqual(await locking, ["C"]);
  const read = expected(echo.read());
  socket.close(1006);
  await settled();
  await failure(read, network.LockLost, /The lock was lost: Lost .*; Echo.read may have been executed/, true);
  await failure(expected(echo.read()), network.LockLost, /Echo.read was not executed/, false);
  await pass(1);
  const next = FakeSocket.last;
  await next.welcome({ Echo: { address: "lab:9" } });
  await next.answer({ attributes: {}, address: "lab:9" }, next.find("link"));
  await failure(client.request("Echo", "x"), network.LockLost, /not executed/, false);
  const sent = next.sent.length;
  assert.deepEqual(await echo.releaseLock(), []);
  assert.equal(next.sent.length, sent, "the Manager has released it already");
  expected(echo.x());
  assert.equal(next.request.attribute, "x");
  echo.acquireLock().catch(() => {});
  await next.answer(["C"], next.find("acquire_lock"));
  await next.notify("Manager", [], { gone: "Echo" });
  await failure(expected(echo.x()), network.LockLost, /has gone/, false);
  echo.acquireLock().catch(() => {});
  await next.answer(["C"], next.find("acquire_lock"));
  await next.answer({ attributes: {}, address: "lab:10" }, next.find("link"));
  expected(echo.y());
  assert.deepEqual(await fate(expected(echo.z())), ["pending"]);
});

test("an acquired lock whose answer does not come in time is released", async () => {
  const [client, socket] = await connected();
  const echo = await linked(client, socket);
  const locking = expected(echo.acquireLock({ timeout: 1 }));
  await pass(1);
  await failure(locking, network.ReplyTimeout, /acquire_lock may have been/, true);
  assert.equal(socket.request.attribute, "release_lock");
});

test("the first connection is tried again within the timeout, and the last real error is raised", async () => {
  const opening = connect("ws://lab/msl", { timeout: 5 });
  FakeSocket.last.close(1006);
  await settled();
  await pass(1);
  assert.equal(FakeSocket.all.length, 2);
  await FakeSocket.last.welcome();
  clients.push(await opening);
  const failing = connect("ws://lab/msl", { timeout: 5 });
  for (let tries = 0; tries < 1000 && (await fate(failing))[0] === "pending"; tries++) {
    FakeSocket.last.close(1006);
    await settled();
    await pass(0.5);
  }
  await failure(failing, network.ConnectError, /code 1006/, false);
  const once = connect("ws://lab/msl", { reconnect: false });
  FakeSocket.last.close(1006);
  await settled();
  await failure(once, network.ConnectError, /code 1006/, false);
});

test("a rejection that is no verdict is followed by further tries, after the time that the Manager asks for", async () => {
  const [client, socket] = await connected();
  socket.close(1006);
  await settled();
  await pass(1);
  const message = "ValueError: Too many logins have failed";
  await FakeSocket.last.say({ error: true, message, requester: "Manager[lab:1]", uid: "", again: 30 });
  FakeSocket.last.close();
  await settled();
  assert.equal(client.state, "lost");
  assert.ok(client.retryIn >= 30);
  assert.equal(client.error.retryAfter, 30);
});

test("after giveUpAfter the client is closed, and what waits is rejected with the cause", async () => {
  const [client, socket] = await connected({ giveUpAfter: 20 });
  const echo = await linked(client, socket);
  socket.close(1006);
  await settled();
  const waiting = expected(echo.x());
  for (let tries = 0; tries < 1000 && client.state !== "closed"; tries++) {
    await pass(0.5);
    FakeSocket.last.close(1006);
    await settled();
  }
  const error = await failure(waiting, network.ConnectionLost, /Echo.x was not executed/, false);
  assert.equal(error.cause, client.error);
  await failure(client.request("Echo", "y"), network.ConnectionLost, /not executed/, false);
});

test("with whileAway raise, requests are rejected while the connection is lost", async () => {
  const [client, socket] = await connected({ whileAway: "raise" });
  const admin = client.request("Manager", "port");
  const held = client.request("Echo", "y");
  socket.close(1006);
  await settled();
  await failure(admin, network.ConnectionLost, /port may/, true);
  await failure(held, network.ConnectionLost, /Echo.y was not executed/, false);
  await failure(client.request("Echo", "z"), network.ConnectionLost, /Not connected/, false);
});

test("unlink while the connection is lost is immediate, and the link is not made again", async () => {
  const [client, socket] = await connected();
  const echo = await linked(client, socket);
  socket.close(1006);
  await settled();
  assert.deepEqual(await fate(echo.unlink()), ["ok", undefined]);
  await pass(1);
  await FakeSocket.last.welcome({ Echo: { address: "lab:9" } });
  assert.equal(FakeSocket.last.find("link"), undefined);
});

test("it connects again, later and later with a limit, and links again, so that notifications go on", async () => {
  const [client, socket] = await connected();
  const linking = client.link("Echo");
  await socket.answer({ attributes: {}, address: "lab:9" });
  const echo = await linking;
  const got = [];
  echo.onNotification(({ args }) => got.push(args));
  const states = [];
  client.addEventListener("state", () => states.push(client.state));
  await pass(1); // of a connection that is lost at once, the client is careful
  mock.method(Math, "random", () => 1); // the longest delay
  socket.close();
  const delays = [];
  await settled();
  for (let attempt = 0; attempt < 9; attempt++) {
    delays.push(client.retryIn);
    await pass(client.retryIn);
    FakeSocket.last.close(1006);
    await settled();
  }
  mock.restoreAll();
  assert.deepEqual(
    delays.slice(0, 4).map((seconds) => seconds.toFixed(2)),
    ["0.10", "0.10", "0.10", "0.15"],
  );
  assert.ok(delays[8] > 1 && delays[8] <= 10, `${delays}`);
  assert.equal(FakeSocket.all.length, 10);
  client.retry();
  await settled();
  const next = FakeSocket.last;
  assert.equal(FakeSocket.all.length, 11);
  await next.welcome({ Echo: { address: "lab:10" } });
  assert.deepEqual(next.find("link").args, ["Echo"]);
  await next.answer({ attributes: { new: "()" }, address: "lab:10" }, next.find("link"));
  assert.equal(client.state, "connected");
  assert.deepEqual([...new Set(states)], ["lost", "reconnecting", "connected"]);
  assert.deepEqual(echo.identity.attributes, { new: "()" });
  await next.say({ error: false, result: [["again"], {}], service: "Echo", uid: "notification" });
  assert.deepEqual(got, [["again"]]);
});

test("a Service that is not back yet is linked again when it is", async () => {
  const [client, socket] = await connected();
  const echo = await linked(client, socket);
  await pass(10);
  await socket.answer({ services: {}, clients: {} }, socket.find("identity"));
  assert.equal(echo.address, null);
  for (let tries = 0; tries < 3; tries++) {
    await pass(2);
    assert.equal(socket.request.attribute, "link");
    await socket.fail("KeyError: locked", { uid: socket.request.uid });
  }
  await pass(2);
  await socket.answer({ attributes: {}, address: "lab:11" }, socket.find("link"));
  assert.equal(echo.address, "lab:11");
});

test("requests to a Service that died are rejected when it is seen to be gone, or to be another one", async () => {
  const [client, socket] = await connected();
  const linking = client.link("Echo");
  await socket.answer({ attributes: {}, address: "lab:9" });
  const echo = await linking;
  const [other, mine] = [client.request("Other", "x"), expected(echo.x())];
  const fine = client.request("Fine", "x");
  await pass(10);
  const look = socket.request;
  const late = expected(echo.y());
  await settled();
  const services = { Echo: { address: "lab:10" }, Fine: { address: "lab:3" } };
  await socket.answer({ services, clients: {} }, look);
  await failure(other, network.ServiceLost, /has gone; Other.x may have been executed/, true);
  await failure(mine, network.ServiceLost, /has gone; Echo.x may have been executed/, true);
  assert.deepEqual(await fate(fine), ["pending"]);
  assert.deepEqual(await fate(late), ["pending"]); // was sent after the look
});

test("a Manager that falls silent while it owes an answer is given up, one that only takes long is not", async () => {
  const [client, socket] = await connected();
  const reply = client.request("Echo", "slow");
  await pass(10); // it looks who is there
  for (let number = 0; number < 10; number++) {
    await pass(10);
    await socket.say({ error: false, result: [[], {}], service: "Echo", uid: "notification" });
  }
  assert.equal(client.state, "connected");
  assert.deepEqual(await fate(reply), ["pending"]);
  for (let number = 0; number < 8; number++) await pass(10);
  await failure(reply, network.ConnectionLost, /says nothing any more; Echo.slow may have been executed/, true);
  assert.ok(["lost", "reconnecting"].includes(client.state));
});

test("a client that is rejected when it connects again gives up and says why", async () => {
  const [client, socket] = await connected();
  socket.close();
  await settled();
  await pass(1);
  await FakeSocket.last.ask("password", "Manager[lab:1]");
  await settled();
  assert.equal(client.state, "closed");
  assert.equal(client.error.name, "AuthenticationError");
  await pass(1000);
  assert.equal(FakeSocket.all.length, 2);
});

test("close ends everything, in every state, and open begins anew", async () => {
  const [client, socket] = await connected();
  const reply = client.request("Echo", "x");
  await settled();
  client.close();
  await failure(reply, network.ConnectionLost, /closed by this client/, true);
  assert.ok(socket.isClosed);
  await pass(100);
  assert.deepEqual([client.state, FakeSocket.all.length], ["closed", 1]);
  const opening = client.open();
  assert.equal(client.state, "connecting");
  await FakeSocket.last.welcome();
  await opening;
  FakeSocket.last.close();
  await settled();
  assert.equal(client.state, "lost");
  client.close();
  await pass(100);
  assert.deepEqual([client.state, FakeSocket.all.length], ["closed", 2]);
  const abandoned = client.open();
  client.close();
  await failure(abandoned, network.ConnectError, /closed by this client/);
});

test("open again directly after close is not closed by the end of the attempt before", async () => {
  const client = new Client("ws://lab/msl");
  clients.push(client);
  const first = expected(client.open());
  client.close();
  const second = expected(client.open());
  await failure(first, network.ConnectError, /closed by this client/);
  assert.equal(client.state, "connecting");
  await FakeSocket.last.welcome();
  assert.equal(await second, client);
  assert.equal(client.state, "connected");
});

test("what another connection said late does not concern this one", async () => {
  const [client, first] = await connected();
  first.close();
  await settled();
  await pass(1);
  await FakeSocket.last.welcome();
  assert.equal(client.state, "connected");
  await first.say({ error: true, message: "x", requester: "Manager[lab:1]", uid: "" });
  first.onclose({ code: 1006, reason: "" });
  await settled();
  assert.equal(client.state, "connected");
});
