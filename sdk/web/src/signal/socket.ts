/** One WebSocket that carries frames; knows nothing of sessions. */

import { SOCKET_OPEN_TIMEOUT_MS } from '../defaults';
import { ConnectionError } from '../errors';
import type { ClientFrame, ServerFrame } from '../gen/mrtc/signaling/v1/client_pb';
import { logger } from '../logger';
import { decodeFrame, encodeFrame, subprotocolOf } from './frames';
import type { FrameFormat } from './frames';

/** Called by a socket; each at most once for `onClose`, and never after `close()`. */
export interface SocketHandlers {
  /** A frame came. */
  onFrame: (frame: ServerFrame) => void;
  /** The connection is gone. */
  onClose: (reason: string) => void;
}

/** The address of the client protocol below a server's base URL. */
export function connectUrl(base: string): string {
  const url = new URL(base, (globalThis as { location?: Location }).location?.href);
  url.protocol = url.protocol.replace(/^http/, 'ws');
  if (!url.pathname.endsWith('/v1/connect')) url.pathname = `${url.pathname.replace(/\/$/, '')}/v1/connect`;
  return url.href;
}

/** An open connection. */
export class SignalSocket {
  readonly #socket: WebSocket;
  readonly #format: FrameFormat;
  #isClosed = false;
  /** `performance.now()` of the last frame sent. */
  lastSentAt = performance.now();
  /** `performance.now()` of the last frame received. */
  lastReceivedAt = performance.now();
  /** Set before the first frame can arrive. */
  handlers: SocketHandlers = { onFrame: () => undefined, onClose: () => undefined };

  private constructor(socket: WebSocket, format: FrameFormat) {
    this.#socket = socket;
    this.#format = format;
    socket.onmessage = (event: MessageEvent) => this.#receive(event.data);
    socket.onclose = (event) => this.#lost(event.reason || `WebSocket closed with ${event.code}`);
    socket.onerror = null;
  }

  /**
   * Opens a connection.
   *
   * @throws ConnectionError if it does not open in time
   */
  static open(base: string, format: FrameFormat, signal?: AbortSignal): Promise<SignalSocket> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(connectUrl(base), [subprotocolOf(format)]);
      socket.binaryType = 'arraybuffer';
      const settle = (finish: () => void): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        socket.onopen = socket.onerror = socket.onclose = null;
        finish();
      };
      const fail = (error: ConnectionError): void =>
        settle(() => {
          socket.close();
          reject(error);
        });
      const abort = (): void => fail(new ConnectionError('the room was left', 'CLOSED'));
      const timer = setTimeout(() => fail(new ConnectionError(`no answer from ${base}`)), SOCKET_OPEN_TIMEOUT_MS);
      socket.onopen = () => settle(() => resolve(new SignalSocket(socket, format)));
      socket.onerror = socket.onclose = () => fail(new ConnectionError(`cannot connect to ${base}`));
      if (signal?.aborted) abort();
      else signal?.addEventListener('abort', abort);
    });
  }

  /** Sends a frame; dropped if the connection is going down (the session repeats what matters). */
  send(frame: ClientFrame): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.lastSentAt = performance.now();
    this.#socket.send(encodeFrame(frame, this.#format));
  }

  /** Ends the connection without telling the handlers. */
  close(): void {
    this.#isClosed = true;
    this.#socket.close(1000);
  }

  /** Gives the connection up and tells the handlers at once, without waiting for the other side. */
  abandon(reason: string): void {
    this.#socket.close();
    this.#lost(reason);
  }

  #receive(data: unknown): void {
    if (this.#isClosed) return;
    this.lastReceivedAt = performance.now();
    let frame: ServerFrame;
    try {
      frame = decodeFrame(data);
    } catch (error) {
      logger.warn('a frame could not be read; reconnecting', error);
      this.abandon('unreadable frame');
      return;
    }
    this.handlers.onFrame(frame);
  }

  #lost(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.handlers.onClose(reason);
  }
}
