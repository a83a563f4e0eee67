/** The errors of the client, and the rules by which it reads the errors of a Manager. All times are in seconds. */

/** The base class of all errors; `mayHaveRun` is false if the request was certainly not executed. */
export class NetworkError extends Error {
  constructor(message, details) {
    super(message);
    Object.assign(this, { name: new.target.name, mayHaveRun: false }, details);
  }
}
export class ConnectError extends NetworkError {} // no connection was made
export class AuthenticationError extends ConnectError {} // the Manager has rejected the client
export class Unanswered extends NetworkError {} // the request has no answer; the next one may have one
export class ConnectionLost extends Unanswered {} // the connection has ended
export class ReplyTimeout extends Unanswered {} // no reply came in time
export class ServiceLost extends Unanswered {} // the Service is not connected
export class LockLost extends NetworkError {} // the lock was lost; the request was not sent
export class RemoteError extends NetworkError {} // the Service raised `typeName`; `traceback` is a list of lines
export class ManagerError extends RemoteError {} // the Manager has rejected the request

const [FIRST_DELAY, LONGEST_DELAY] = [0.1, 10]; // limits of the maximum delay before a try to connect
const TRANSIENT = /^(ConnectionAborted|Timeout|Runtime|Buffer|OS)Error:|^ValueError: Too many logins|\(max_\w+\)/;
const NAME_TAKEN = / is already (running|connected)\b/; // perhaps by the lost connection of this client

/** Return the delay before the next try to connect: random, up to half of the time since the loss. */
export function delay(elapsed, retryAfter = 0) {
  const longest = (half) => Math.min(Math.max(half, FIRST_DELAY), LONGEST_DELAY);
  return retryAfter + Math.random() * longest((retryAfter || elapsed) / 2);
}

/** Return true if the rejection by a Manager is a verdict on this client, so that further tries are useless. */
export function isFinal(rejection, retryAfter, isFirst) {
  if (NAME_TAKEN.test(rejection)) return isFirst;
  return retryAfter === undefined && !TRANSIENT.test(rejection);
}

/** Return true if an error says that the Manager does not know this Service (quoted twice, as by Python). */
export function isRefusal(message, service) {
  const quoted = /^KeyError: .the \\?['"](.+?)\\?['"] Service is not connected to /s.exec(message)?.[1];
  return quoted?.replaceAll("\\", "") === service.replaceAll("\\", "");
}

/** Return the class of the error if the answer means that Service or connection have gone, or else undefined. */
export function lossOf(message) {
  if (/^ConnectionAborted.+, the request may /s.test(message)) return ConnectionLost;
  if (/^ConnectionError: the .+ Service has gone from /s.test(message)) return ServiceLost; // of our Manager
}
