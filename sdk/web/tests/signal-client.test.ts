import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CHECK_TIMEOUT_MS } from '../src/defaults';
import { AuthError, ConnectionError, ServerError } from '../src/errors';
import { ErrorCode, LeaveReason } from '../src/gen/mrtc/common/v1/common_pb';
import { SignalClient } from '../src/signal/signal-client';
import type { ServerBody } from '../src/signal/frames';
import { FakeServer, answerSessions, joinReply, until } from './support/fake-server';

let server: FakeServer;
let client: SignalClient;
let pushes: ServerBody[];

async function join(): Promise<void> {
  await client.open();
  await client.join({ token: 't' });
}

const message = (seq: bigint): { case: 'messageReceived'; value: { messageSeq: bigint } } => ({
  case: 'messageReceived',
  value: { messageSeq: seq },
});

beforeEach(async () => {
  server = await FakeServer.start();
  client = new SignalClient({ urls: [server.url], format: 'proto' });
  pushes = [];
  client.on('push', (body) => pushes.push(body));
});

afterEach(async () => {
  client.close();
  await server.close();
});

describe('a join', () => {
  it('is one request with id 1', async () => {
    await join();
    const [frame] = server.framesOf('join');
    expect(frame?.requestId).toBe(1n);
    expect(client.lastMessageSeq).toBe(10);
  });

  it('fails with the typed error of the server', async () => {
    server.onFrame = (connection, frame) =>
      connection.reply(frame, { case: 'error', value: { code: ErrorCode.TOKEN_EXPIRED, message: 'expired' } });
    await client.open();
    const error: unknown = await client.join({ token: 't' }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(AuthError);
    expect((error as AuthError).code).toBe('TOKEN_EXPIRED');
    expect((error as AuthError).retryAfterMs).toBeUndefined();
  });

  it('tells when a retry makes sense', async () => {
    const value = { code: ErrorCode.UNAVAILABLE, message: 'starting', retryAfterMs: 250 };
    server.onFrame = (connection, frame) => connection.reply(frame, { case: 'error', value });
    await client.open();
    const error: unknown = await client.join({ token: 't' }).catch((e: unknown) => e);
    expect((error as ServerError).retryAfterMs).toBe(250);
  });

  it('fails when the server closes instead of answering', async () => {
    server.onFrame = (connection) => connection.cut();
    await client.open();
    await expect(client.join({ token: 't' })).rejects.toBeInstanceOf(ConnectionError);
  });

  it('fails when nothing listens', async () => {
    const { url } = server;
    await server.close();
    await expect(new SignalClient({ urls: [url], format: 'proto' }).open()).rejects.toBeInstanceOf(ConnectionError);
  });
});

describe('requests', () => {
  it('have rising ids and get their own replies, in any order', async () => {
    await join();
    const seen: { requestId: bigint }[] = [];
    server.onFrame = (connection, frame) => {
      seen.push(frame);
      if (seen.length < 2) return;
      for (const one of [...server.connection.frames.slice(-2)].reverse()) {
        connection.reply(one, { case: 'sendMessage', value: { messageSeq: one.requestId } });
      }
    };
    const send = (): Promise<{ messageSeq: bigint }> =>
      client.request({ case: 'sendMessage', value: { topic: 'x' } }, 'sendMessage');
    const [first, second] = await Promise.all([send(), send()]);
    expect([first.messageSeq, second.messageSeq]).toEqual([2n, 3n]);
  });

  it('are refused before the join', async () => {
    await expect(client.request({ case: 'leave', value: {} }, 'done')).rejects.toMatchObject({ code: 'BAD_STATE' });
  });

  it('fail with CLOSED when the session is ended', async () => {
    await join();
    const pending = client.request({ case: 'unpublish', value: {} }, 'done');
    client.close();
    await expect(pending).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('are limited in number', async () => {
    await join();
    const requests = Array.from({ length: 257 }, () => client.request({ case: 'unpublish', value: {} }, 'done'));
    requests.slice(0, 256).forEach((request) => void request.catch(() => undefined));
    await expect(requests[256]).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
  });
});

describe('a lost connection', () => {
  it('is resumed with the newest message and the requests that have no reply', async () => {
    await join();
    server.connection.push(message(12n));
    await until(() => client.lastMessageSeq === 12);
    const pending = client.request({ case: 'mute', value: { trackId: 'tr', isMuted: true } }, 'done');
    await until(() => server.framesOf('mute').length === 1);
    server.onFrame = (connection, frame) => {
      answerSessions(connection, frame);
      if (frame.body.case === 'mute') connection.reply(frame, { case: 'done', value: {} });
    };
    server.connection.cut();
    await pending;
    const [resume] = server.framesOf('resume');
    expect(resume?.body.value).toMatchObject({ resumeToken: 'secret', lastMessageSeq: 12n });
    const [first, second] = server.framesOf('mute');
    expect(second?.requestId).toBe(first?.requestId);
  });

  it('holds requests back until the session goes on', async () => {
    await join();
    server.onFrame = (connection, frame) => {
      if (frame.body.case === 'sendMessage') connection.reply(frame, { case: 'sendMessage', value: { messageSeq: 5n } });
      else answerSessions(connection, frame);
    };
    client.reconnect('test');
    expect(client.isConnected).toBe(false);
    await client.request({ case: 'sendMessage', value: {} }, 'sendMessage');
    const cases = server.connection.frames.map(({ body }) => body.case);
    expect(cases).toEqual(['resume', 'sendMessage']);
  });

  it('gives each message once, in order, whatever the server repeats', async () => {
    await join();
    server.connection.push(message(11n));
    server.connection.push(message(12n));
    await until(() => pushes.length === 2);
    server.connection.cut();
    await until(() => server.connections.length === 2 && client.isConnected);
    for (const seq of [12n, 13n, 13n, 14n]) server.connection.push(message(seq));
    await until(() => client.lastMessageSeq === 14);
    expect(pushes.map(({ value }) => (value as { messageSeq: bigint }).messageSeq)).toEqual([11n, 12n, 13n, 14n]);
  });

  it('goes to the next address', async () => {
    const other = await FakeServer.start();
    client = new SignalClient({ urls: [server.url, other.url], format: 'proto' });
    await join();
    server.connection.cut();
    await until(() => other.framesOf('resume').length === 1);
    await other.close();
  });

  it('ends the session when the server no longer knows it', async () => {
    await join();
    const ended = new Promise<string>((resolve) => client.on('ended', (_, error) => resolve(error?.code ?? '')));
    server.onFrame = (connection, frame) =>
      connection.reply(frame, { case: 'error', value: { code: ErrorCode.SESSION_NOT_FOUND, message: 'gone' } });
    server.connection.cut();
    expect(await ended).toBe('SESSION_NOT_FOUND');
  });

  it('is tried again when the server says so', async () => {
    await join();
    server.onFrame = (connection, frame) => {
      if (server.connections.length > 2) return answerSessions(connection, frame);
      const value = { code: ErrorCode.UNAVAILABLE, message: 'starting', retryAfterMs: 1 };
      connection.reply(frame, { case: 'error', value });
    };
    server.connection.cut();
    await until(() => server.connections.length === 3 && client.isConnected);
  });

  it('is not caused for ever by one request', async () => {
    await join();
    server.onFrame = (connection, frame) => {
      answerSessions(connection, frame);
      if (frame.body.case === 'unpublish') connection.cut();
    };
    const request = client.request({ case: 'unpublish', value: {} }, 'done');
    await expect(request).rejects.toMatchObject({ code: 'CONNECTION_FAILED' });
    expect(server.framesOf('unpublish')).toHaveLength(6);
  });

  it('is noticed soon when asked whether it lives, and left alone when it does', async () => {
    await join();
    server.onFrame = (connection, frame) => {
      if (frame.body.case === 'ping') connection.push({ case: 'pong', value: { clientTimeMs: frame.body.value.clientTimeMs } });
      else answerSessions(connection, frame);
    };
    const lost: number[] = [];
    client.on('reconnecting', () => lost.push(server.framesOf('ping').length));
    client.check();
    await new Promise((resolve) => setTimeout(resolve, CHECK_TIMEOUT_MS + 100));
    expect(lost).toEqual([]);
    server.onFrame = answerSessions;
    client.check();
    await until(() => server.framesOf('resume').length === 1);
    expect(lost).toEqual([2]);
  });

  it('is given up after the grace time', async () => {
    server.onFrame = (connection, frame) => connection.reply(frame, joinReply({ resumeGraceMs: 1 }));
    await join();
    const ended = new Promise<string>((resolve) => client.on('ended', (reason) => resolve(reason)));
    server.onFrame = (connection) => connection.cut();
    server.connection.cut();
    expect(await ended).toBe('connection_lost');
  });

  it('goes on after the grace time while media flows', async () => {
    client.close();
    let hasMedia = true;
    client = new SignalClient({ urls: [server.url], format: 'proto', hasMedia: () => hasMedia });
    server.onFrame = (connection, frame) => connection.reply(frame, joinReply({ resumeGraceMs: 1 }));
    await join();
    const reasons: string[] = [];
    client.on('ended', (reason) => reasons.push(reason));
    let attempts = 0;
    server.onFrame = (connection) => {
      attempts++;
      connection.cut();
    };
    server.connection.cut();
    await until(() => attempts >= 2);
    expect(reasons).toEqual([]);
    hasMedia = false;
    await until(() => reasons.length === 1);
    expect(reasons).toEqual(['connection_lost']);
  });
});

describe('pushes', () => {
  it('are acknowledged together', async () => {
    await join();
    for (let i = 0; i < 16; i++) server.connection.push({ case: 'speakersChanged', value: {} });
    const ack = await until(() => server.framesOf('ackOnly')[0]);
    expect(ack.ack).toBe(16n);
  });

  it('are acknowledged by any frame', async () => {
    await join();
    server.connection.push({ case: 'speakersChanged', value: {} });
    await until(() => pushes.length === 1);
    void client.request({ case: 'unpublish', value: {} }, 'done').catch(() => undefined);
    const frame = await until(() => server.framesOf('unpublish')[0]);
    expect(frame.ack).toBe(1n);
  });

  it('that skip a number lead to a resume', async () => {
    await join();
    server.connection.push({ case: 'speakersChanged', value: {} }, 7);
    await until(() => server.framesOf('resume').length === 1);
    expect(pushes).toHaveLength(0);
  });

  it('start again at 1 with each connection', async () => {
    await join();
    server.connection.push({ case: 'speakersChanged', value: {} });
    await until(() => pushes.length === 1);
    server.connection.cut();
    await until(() => server.connections.length === 2 && client.isConnected);
    server.connection.push({ case: 'speakersChanged', value: {} });
    await until(() => pushes.length === 2);
  });
});

describe('a server that closes', () => {
  it('ends the session with its reason', async () => {
    await join();
    const ended = new Promise<string>((resolve) => client.on('ended', (reason) => resolve(reason)));
    server.connection.push({ case: 'closing', value: { reason: LeaveReason.DUPLICATE_IDENTITY, canResume: false } });
    expect(await ended).toBe('duplicate_identity');
    expect(server.connections).toHaveLength(1);
  });

  it('is left for another when the session lives on', async () => {
    await join();
    server.connection.push({ case: 'closing', value: { reason: LeaveReason.SERVER_SHUTDOWN, canResume: true } });
    await until(() => server.framesOf('resume').length === 1);
  });
});

describe('bad input', () => {
  it.each([
    ['text that is no JSON', 'hello'],
    ['bytes that are no frame', new Uint8Array([255, 255, 255])],
  ])('%s leads to a resume and to nothing else', async (_, data) => {
    await join();
    server.connection.sendRaw(data);
    await until(() => server.framesOf('resume').length === 1 && client.isConnected);
    expect(pushes).toHaveLength(0);
  });

  it('a reply to nobody is ignored', async () => {
    await join();
    const [frame] = server.framesOf('join');
    if (frame) server.connection.reply({ ...frame, requestId: 99n }, { case: 'done', value: {} });
    server.connection.push({ case: 'speakersChanged', value: {} });
    await until(() => pushes.length === 1);
  });
});
