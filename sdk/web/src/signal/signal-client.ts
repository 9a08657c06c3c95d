/**
 * A session with the server: joins once, survives the loss of its connection (resume with backoff, unanswered requests
 * repeated), acknowledges pushes, and keeps a heartbeat.
 */

import {
  ACK_AFTER_MS,
  ACK_EVERY_PUSHES,
  ATTEMPTS_PER_GRACE,
  CHECK_TIMEOUT_MS,
  SILENT_INTERVALS,
  SOCKET_OPEN_TIMEOUT_MS,
} from '../defaults';
import { Emitter } from '../emitter';
import { ConnectionError, MrtcError, ServerError, StateError, errorFromServer } from '../errors';
import type { Closing, JoinResponse, ResumeResponse, ServerFrame } from '../gen/mrtc/signaling/v1/client_pb';
import { logger } from '../logger';
import type { Reason } from '../words';
import { reasonFromWire } from '../words';
import { reconnectDelayMs, sleep } from './backoff';
import { clientFrame } from './frames';
import type { ClientBody, FrameFormat, ServerBody, ServerCase, ServerValue } from './frames';
import { RequestRegister } from './requests';
import { SignalSocket } from './socket';

/** What a session tells. */
export type SignalEvents = {
  /** A push, in order. */
  push: [body: ServerBody];
  /** The connection is gone; attempts to resume begin. */
  reconnecting: [];
  /** The session goes on; the snapshot replaces what was known. Messages that were missed follow as pushes. */
  resumed: [response: ResumeResponse];
  /** The session is over and was not ended by `leave`. */
  ended: [reason: Reason, error: MrtcError | undefined];
};

/** Settings of a session. */
export interface SignalOptions {
  /** Base URLs of signaling instances; each attempt takes the next one. */
  urls: readonly string[];
  /** How frames are written. */
  format: FrameFormat;
  /**
   * Says whether media flows. While it does, attempts to reconnect go on: where no server is at all, the grace time of
   * the session does not run either.
   */
  hasMedia?: () => boolean;
}

/** One session. Used once: after its end make a new one. */
export class SignalClient extends Emitter<SignalEvents> {
  readonly #options: SignalOptions;
  readonly #requests = new RequestRegister();
  readonly #closed = new AbortController();
  #socket: SignalSocket | undefined;
  #attempts = 0;
  #isResuming = false;
  #resumeToken = '';
  #resumeGraceMs = 0;
  #heartbeatMs = 0;
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  #pushSeq = 0;
  #ackedSeq = 0;
  #ackTimer: ReturnType<typeof setTimeout> | undefined;
  /** The newest text message that the application was given; a resume asks for what follows. */
  lastMessageSeq = 0;
  /** Round trip of the last heartbeat in milliseconds; 0 before the first. */
  rttMs = 0;

  constructor(options: SignalOptions) {
    super();
    this.#options = options;
  }

  /** True while frames can be exchanged. */
  get isConnected(): boolean {
    return this.#socket !== undefined && !this.#isResuming;
  }

  /** Opens the connection. Separate from `join`, so that the offer can be made meanwhile. */
  async open(): Promise<void> {
    this.#attach(await SignalSocket.open(this.#nextUrl(), this.#options.format, this.#closed.signal));
  }

  /** Joins a room on the open connection. */
  async join(value: Extract<ClientBody, { case: 'join' }>['value']): Promise<JoinResponse> {
    if (!this.#socket) throw new ConnectionError('the server closed the connection');
    const response = await this.#request({ case: 'join', value }, 'join', SOCKET_OPEN_TIMEOUT_MS);
    this.#resumeToken = response.resumeToken;
    this.#resumeGraceMs = response.resumeGraceMs;
    this.lastMessageSeq = Number(response.snapshot?.lastMessageSeq ?? 0n);
    this.#startHeartbeat(response.heartbeatIntervalMs);
    return response;
  }

  /**
   * Sends a request and waits for the reply of the named case. While the connection is lost, the request waits.
   *
   * @throws ServerError, ConnectionError
   */
  request<C extends ServerCase>(body: ClientBody, reply: C): Promise<ServerValue<C>> {
    if (!this.#resumeToken) return Promise.reject(new StateError('not in a room'));
    return this.#request(body, reply);
  }

  /** Leaves the room; resolves when the server has answered or cannot be reached. Never fails. */
  async leave(): Promise<void> {
    if (this.isConnected && this.#resumeToken) {
      await Promise.race([
        this.#request({ case: 'leave', value: {} }, 'done').catch((error: unknown) => logger.debug('leave', error)),
        sleep(1_000),
      ]);
    }
    this.close();
  }

  /** Ends everything at once. The server keeps the session for its grace time. */
  close(): void {
    this.#closed.abort();
    clearInterval(this.#heartbeat);
    clearTimeout(this.#ackTimer);
    this.#socket?.close();
    this.#socket = undefined;
    this.#requests.failAll(new ConnectionError('the room was left', 'CLOSED'));
  }

  /** Drops the connection as a network failure would; for tests and for `online` events. */
  reconnect(reason: string): void {
    this.#socket?.abandon(reason);
  }

  /** Asks whether the server still hears us, and gives the connection up if it does not: media has stopped. */
  check(): void {
    const socket = this.#socket;
    if (!socket || !this.isConnected || !this.#resumeToken) return;
    const askedAt = performance.now();
    this.#ping();
    setTimeout(() => {
      if (socket === this.#socket && socket.lastReceivedAt < askedAt) socket.abandon('no answer while media is interrupted');
    }, CHECK_TIMEOUT_MS);
  }

  async #request<C extends ServerCase>(body: ClientBody, reply: C, timeoutMs?: number): Promise<ServerValue<C>> {
    if (this.#hasClosed()) throw new ConnectionError('the room was left', 'CLOSED');
    const id = this.#requests.nextId();
    const promise = this.#requests.add(id, body, timeoutMs);
    if (!this.#isResuming) this.#send(id, body);
    const answer = await promise;
    if (answer.case !== reply) throw new MrtcError('INTERNAL', `"${answer.case ?? ''}" came in reply to "${reply}"`);
    return answer.value as ServerValue<C>;
  }

  #send(requestId: number, body: ClientBody): void {
    this.#ackedSeq = this.#pushSeq;
    this.#socket?.send(clientFrame(requestId, this.#pushSeq, body));
  }

  #nextUrl(): string {
    const { urls } = this.#options;
    const url = urls[this.#attempts++ % urls.length];
    if (url === undefined) throw new MrtcError('BAD_ARGUMENT', 'a server URL is needed');
    return url;
  }

  #attach(socket: SignalSocket): void {
    this.#socket = socket;
    this.#pushSeq = this.#ackedSeq = 0;
    socket.handlers = {
      onFrame: (frame) => this.#receive(frame),
      onClose: (reason) => this.#lost(reason),
    };
  }

  #receive(frame: ServerFrame): void {
    const { body } = frame;
    if (body.case === 'pong') this.rttMs = Math.max(0, Date.now() - Number(body.value.clientTimeMs));
    if (frame.requestId !== 0n) {
      if (!this.#requests.settle(frame)) logger.debug(`a reply came to nobody: ${body.case ?? ''}`);
      return;
    }
    if (body.case === 'error') return this.#refused(frame);
    if (frame.pushSeq !== 0n) this.#push(Number(frame.pushSeq), body);
  }

  /** An error that answers no request concerns the connection: the first frame was refused, or one was unreadable. */
  #refused(frame: ServerFrame): void {
    if (frame.body.case !== 'error') return;
    logger.warn(`the server says: ${frame.body.value.message}`);
    if (!this.#resumeToken) this.#requests.failAll(errorFromServer(frame.body.value));
  }

  #push(seq: number, body: ServerBody): void {
    if (seq !== this.#pushSeq + 1) {
      logger.warn(`push ${seq} came after ${this.#pushSeq}; reconnecting`);
      this.#socket?.abandon('a push is missing');
      return;
    }
    this.#pushSeq = seq;
    if (body.case === 'closing') return this.#closing(body.value);
    if (body.case === 'messageReceived') {
      const messageSeq = Number(body.value.messageSeq);
      if (messageSeq > this.lastMessageSeq) {
        this.lastMessageSeq = messageSeq;
        this.emit('push', body);
      }
    } else {
      this.emit('push', body);
    }
    this.#scheduleAck();
  }

  #closing(closing: Closing): void {
    const reason = reasonFromWire(closing.reason);
    if (closing.canResume) this.#socket?.abandon(`the server closes: ${reason}`);
    else this.#end(reason, undefined);
  }

  #scheduleAck(): void {
    if (this.#pushSeq - this.#ackedSeq >= ACK_EVERY_PUSHES) return this.#ack();
    this.#ackTimer ??= setTimeout(() => this.#ack(), ACK_AFTER_MS);
  }

  #ack(): void {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    if (this.#pushSeq > this.#ackedSeq) this.#send(0, { case: 'ackOnly', value: {} });
  }

  #startHeartbeat(intervalMs: number): void {
    this.#heartbeatMs = intervalMs || 10_000;
    clearInterval(this.#heartbeat);
    this.#heartbeat = setInterval(() => this.#beat(), this.#heartbeatMs / 4);
  }

  #beat(): void {
    const socket = this.#socket;
    if (!socket || this.#isResuming) return;
    const now = performance.now();
    if (now - socket.lastReceivedAt > SILENT_INTERVALS * this.#heartbeatMs) socket.abandon('nothing was heard');
    else if (now - socket.lastSentAt > (this.#heartbeatMs * 3) / 4 || now - socket.lastReceivedAt > this.#heartbeatMs) {
      this.#ping();
    }
  }

  #ping(): void {
    this.#send(0, { case: 'ping', value: { clientTimeMs: BigInt(Date.now()) } });
  }

  #lost(reason: string): void {
    this.#socket = undefined;
    if (this.#hasClosed()) return;
    if (!this.#resumeToken) {
      this.#requests.failAll(new ConnectionError(`the server closed the connection: ${reason}`));
      return;
    }
    if (this.#isResuming) return;
    logger.warn(`connection lost (${reason}); resuming`);
    this.#isResuming = true;
    void this.#resumeLoop();
    this.emit('reconnecting');
  }

  #hasClosed(): boolean {
    return this.#closed.signal.aborted;
  }

  async #resumeLoop(): Promise<void> {
    let deadline = performance.now() + this.#resumeGraceMs;
    for (let attempt = 0; !this.#hasClosed(); attempt++) {
      // The server may have been back for a whole wait, of which its grace time has to be longer.
      const longestMs = this.#resumeGraceMs / ATTEMPTS_PER_GRACE;
      await sleep(reconnectDelayMs(attempt, Math.random, longestMs), this.#closed.signal);
      try {
        this.#resumed(await this.#resumeOnce());
        return;
      } catch (error) {
        if (this.#hasClosed()) return;
        if (this.#options.hasMedia?.()) deadline = performance.now() + this.#resumeGraceMs;
        const isFinal = error instanceof ServerError && error.retryAfterMs === undefined;
        if (isFinal || performance.now() > deadline) {
          this.#end('connection_lost', isFinal ? error : new ConnectionError('no server was reached in the grace time'));
          return;
        }
        logger.info(`attempt ${attempt + 1} to resume failed: ${String(error)}`);
      }
    }
  }

  async #resumeOnce(): Promise<ResumeResponse> {
    this.#attach(await SignalSocket.open(this.#nextUrl(), this.#options.format, this.#closed.signal));
    const socket = this.#socket;
    const id = this.#requests.nextId();
    const body: ClientBody = {
      case: 'resume',
      value: { resumeToken: this.#resumeToken, lastMessageSeq: BigInt(this.lastMessageSeq) },
    };
    return await new Promise<ResumeResponse>((resolve, reject) => {
      if (!socket) return reject(new ConnectionError('the room was left', 'CLOSED'));
      const timer = setTimeout(() => socket.abandon('no reply to resume'), SOCKET_OPEN_TIMEOUT_MS);
      const settle = (finish: () => void): void => {
        clearTimeout(timer);
        finish();
      };
      socket.handlers = {
        onFrame: ({ body: reply }) => {
          if (reply.case === 'resume') settle(() => resolve(reply.value));
          else if (reply.case === 'error') {
            settle(() => reject(errorFromServer(reply.value)));
            socket.close();
          }
        },
        onClose: (reason) => settle(() => reject(new ConnectionError(reason))),
      };
      socket.send(clientFrame(id, 0, body));
    });
  }

  #resumed(response: ResumeResponse): void {
    const socket = this.#socket;
    if (!socket) return;
    this.#isResuming = false;
    this.#attach(socket);
    for (const [id, body] of this.#requests.repeat()) this.#send(id, body);
    this.emit('resumed', response);
    logger.info('session resumed');
  }

  #end(reason: Reason, error: MrtcError | undefined): void {
    this.close();
    this.emit('ended', reason, error);
  }
}
