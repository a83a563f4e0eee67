/** A Manager on the other side of a WebSocket that is none, which says what a test tells it to say. */
export class FakeSocket {
  static all = [];
  sent = [];

  constructor(url, protocol) {
    Object.assign(this, { url, protocol, isClosed: false });
    FakeSocket.all.push(this);
  }

  static get last() {
    return FakeSocket.all.at(-1);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code = 1000, reason = "") {
    if (this.isClosed) return;
    this.isClosed = true;
    setImmediate(() => this.onclose({ code, reason }));
  }

  /** Have the client receive a message: an object, or a text as it is. */
  async say(message) {
    this.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) });
    await settled();
  }

  /** The last request that the client has sent. */
  get request() {
    return this.sent.at(-1);
  }

  /** The last request for an attribute. */
  find(attribute) {
    return this.sent.findLast((request) => request.attribute === attribute);
  }

  async answer(result, request = this.request) {
    await this.say({ error: false, requester: "C[lab:2]", result, uid: request.uid });
  }

  async fail(message, { uid = "", requester = "C[lab:2]", traceback = [] } = {}) {
    await this.say({ error: true, message, requester, result: null, traceback, uid });
  }

  async notify(service, args, kwargs = {}) {
    await this.say({ error: false, result: [args, kwargs], service, uid: "notification" });
  }

  async ask(attribute, ...args) {
    await this.say({ args, attribute, error: false, kwargs: {}, requester: "Manager[lab:1]", uid: "" });
  }

  /** Say what a Manager without a password says, until the client is connected and knows who is there. */
  async welcome(services = {}) {
    await this.ask("identity");
    await this.answer(true); // to the barrier
    await this.answer({ hostname: "lab", services, clients: {} }, this.find("identity")); // to the first look
  }
}

/** Let everything happen that can happen now. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));
