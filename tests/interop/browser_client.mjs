/**
 * The JavaScript client at a real Manager, in Node.js: `browser_client.mjs MODULES URL`. It prints what is to be done
 * to the network, waits for a line on standard input, and finally prints what it has seen, as JSON.
 */
import { createInterface } from "node:readline";

globalThis.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    // Browsers send this event as well if no connection is made; Node.js 20 does not.
    this.addEventListener("error", () => this.onclose({ code: 1006, reason: "" }));
  }
};
const [modules, url] = process.argv.slice(2);
const { connect } = await import(`${modules}/msl-network.js`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = (promise) =>
  promise.then(
    (result) => result,
    (error) => [error.name, error.mayHaveRun],
  );
const order = async (what) => {
  console.log(what);
  await lines.next();
};

const seen = {};
const client = await connect(url, { requestTimeout: 60 });
const echo = await client.link("Echo", { idempotent: ["add"] });
const gaps = [];
echo.onGap(({ reason }) => gaps.push(reason));
await echo.acquireLock();
const address = echo.address;
await client.link("Echo");
seen.relinking = [echo.address === address, await told(echo.add(1, 2)), gaps.length];
seen.refused = await told(client.request("Gone", "x"));

const lost = new Promise((resolve) => client.addEventListener("state", resolve, { once: true }));
const cut = told(echo.slow(600));
await order("kill the Manager");
await lost;
seen.cut = await cut;
seen.locked = await told(echo.add(1, 2));
await echo.releaseLock();
const waiting = told(echo.add(3, 4));
await order("start the Manager");
seen.waiting = await waiting;
seen.gaps = [gaps.length];

const orphaned = told(echo.slow(600));
await order("restart the Service");
await client.identity(); // a Manager of msl-network tells nothing by itself
seen.orphaned = await orphaned;
seen.after = await told(echo.add(5, 6));
seen.gaps.push(gaps.length);
client.close();
console.log(JSON.stringify(seen));
process.exit();
