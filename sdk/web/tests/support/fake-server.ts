/** A WebSocket server that speaks the client protocol and does what a test tells it. */

import type { AddressInfo } from 'node:net';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { WebSocketServer } from 'ws';
import type { WebSocket } from 'ws';
import { ClientFrameSchema, JoinResponseSchema, ServerFrameSchema } from '../../src/gen/mrtc/signaling/v1/client_pb';
import type { ClientFrame } from '../../src/gen/mrtc/signaling/v1/client_pb';

/** The oneof of a frame to the client. */
export type ReplyBody = NonNullable<MessageInitShape<typeof ServerFrameSchema>['body']>;

/** One connection as the server sees it. */
export class FakeConnection {
  /** All frames that came, in order. */
  readonly frames: ClientFrame[] = [];
  readonly #socket: WebSocket;
  #pushSeq = 0;

  constructor(socket: WebSocket, onFrame: (connection: FakeConnection, frame: ClientFrame) => void) {
    this.#socket = socket;
    socket.on('message', (data: Buffer) => {
      const frame = fromBinary(ClientFrameSchema, Uint8Array.from(data));
      this.frames.push(frame);
      onFrame(this, frame);
    });
  }

  /** Answers a request. */
  reply(to: ClientFrame, body: ReplyBody): void {
    this.#send({ requestId: to.requestId, body });
  }

  /** Sends a push with the next number, or with the one that is given. */
  push(body: ReplyBody, seq = this.#pushSeq + 1): void {
    this.#pushSeq = seq;
    this.#send({ pushSeq: BigInt(seq), body });
  }

  /** Sends bytes as they are. */
  sendRaw(data: string | Uint8Array): void {
    this.#socket.send(data);
  }

  /** Cuts it without a closing handshake. */
  cut(): void {
    this.#socket.terminate();
  }

  #send(init: MessageInitShape<typeof ServerFrameSchema>): void {
    this.#socket.send(toBinary(ServerFrameSchema, create(ServerFrameSchema, init)));
  }
}

/** The server. */
export class FakeServer {
  /** All connections, the newest last. */
  readonly connections: FakeConnection[] = [];
  /** What happens with a frame; by default joins and resumes succeed. */
  onFrame: (connection: FakeConnection, frame: ClientFrame) => void = answerSessions;
  readonly #server: WebSocketServer;

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on('connection', (socket) => {
      this.connections.push(new FakeConnection(socket, (connection, frame) => this.onFrame(connection, frame)));
    });
  }

  /** Listens on a free port. */
  static start(): Promise<FakeServer> {
    return new Promise((resolve) => {
      const server = new WebSocketServer({
        host: '127.0.0.1',
        port: 0,
        path: '/v1/connect',
        handleProtocols: (offered) => [...offered][0] ?? false,
      });
      server.on('listening', () => resolve(new FakeServer(server)));
    });
  }

  /** Base URL. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The newest connection. */
  get connection(): FakeConnection {
    const newest = this.connections.at(-1);
    if (!newest) throw new Error('nobody connected');
    return newest;
  }

  /** All frames of all connections with this body, oldest first. */
  framesOf(name: string): ClientFrame[] {
    return this.connections.flatMap(({ frames }) => frames.filter(({ body }) => body.case === name));
  }

  /** Stops listening and cuts everything. */
  close(): Promise<void> {
    for (const socket of this.#server.clients) socket.terminate();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

/** The least that keeps a session alive. */
export function answerSessions(connection: FakeConnection, frame: ClientFrame): void {
  if (frame.body.case === 'join') connection.reply(frame, joinReply());
  if (frame.body.case === 'resume') {
    connection.reply(frame, { case: 'resume', value: { snapshot: { room: 'room' }, hasTransport: true } });
  }
}

/** A good answer to a join, with what a test adds to it. */
export function joinReply(more: MessageInitShape<typeof JoinResponseSchema> = {}): ReplyBody {
  return {
    case: 'join',
    value: {
      participant: { id: 'me', identity: 'me', isConnected: true },
      sessionId: 'session',
      resumeToken: 'secret',
      snapshot: { room: 'room', lastMessageSeq: 10n },
      heartbeatIntervalMs: 10_000,
      resumeGraceMs: 5_000,
      ...(more as object),
    },
  };
}

/** Polls until the condition gives something truthy. */
export async function until<T>(condition: () => T, timeoutMs = 5_000): Promise<NonNullable<T>> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
