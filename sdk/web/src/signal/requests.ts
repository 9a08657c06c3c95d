/** Requests on their way: each has an id, is repeated after a resume, and ends by reply, error or timeout. */

import { MAX_PENDING_REQUESTS, MAX_REQUEST_REPEATS, REQUEST_TIMEOUT_MS } from '../defaults';
import { ConnectionError, MrtcError, errorFromServer } from '../errors';
import type { ServerFrame } from '../gen/mrtc/signaling/v1/client_pb';
import type { ClientBody, ServerBody } from './frames';

interface Pending {
  repeats: number;
  body: ClientBody;
  resolve: (body: ServerBody) => void;
  reject: (error: MrtcError) => void;
  timer: ReturnType<typeof setTimeout>;
}

/** The requests of one session, in the order of their ids. */
export class RequestRegister {
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;

  /** An id that is given out once. */
  nextId(): number {
    return ++this.#lastId;
  }

  /**
   * Registers a request; the promise settles with its reply.
   *
   * @throws MrtcError LIMIT_EXCEEDED when too many wait
   */
  add(id: number, body: ClientBody, timeoutMs = REQUEST_TIMEOUT_MS): Promise<ServerBody> {
    if (this.#pending.size >= MAX_PENDING_REQUESTS) {
      return Promise.reject(new MrtcError('LIMIT_EXCEEDED', `${MAX_PENDING_REQUESTS} requests are waiting already`));
    }
    return new Promise((resolve, reject) => {
      const expire = (): void => {
        this.#pending.delete(id);
        reject(new ConnectionError(`no reply to "${body.case ?? ''}" in ${timeoutMs} ms`, 'TIMEOUT'));
      };
      this.#pending.set(id, { repeats: 0, body, resolve, reject, timer: setTimeout(expire, timeoutMs) });
    });
  }

  /** Settles the request that a frame answers. False: nobody waits for it (any more). */
  settle(frame: ServerFrame): boolean {
    const id = Number(frame.requestId);
    const pending = this.#pending.get(id);
    if (!pending) return false;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (frame.body.case === 'error') pending.reject(errorFromServer(frame.body.value));
    else pending.resolve(frame.body);
    return true;
  }

  /**
   * What has to be sent again on a new connection, oldest first. A request that outlived too many connections is failed
   * instead: it may be what ends them.
   */
  repeat(): [id: number, body: ClientBody][] {
    const repeated: [number, ClientBody][] = [];
    for (const [id, pending] of [...this.#pending]) {
      if (++pending.repeats <= MAX_REQUEST_REPEATS) {
        repeated.push([id, pending.body]);
        continue;
      }
      this.#pending.delete(id);
      clearTimeout(pending.timer);
      pending.reject(new ConnectionError(`"${pending.body.case ?? ''}" was sent ${pending.repeats} times in vain`));
    }
    return repeated;
  }

  /** Fails all. */
  failAll(error: MrtcError): void {
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#pending.clear();
  }
}
