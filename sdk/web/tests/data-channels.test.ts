/** Topics on the data channels of a peer connection. */

import { beforeEach, describe, expect, it } from 'vitest';
import { DataChannels, frameData, parseData } from '../src/transport/data-channels';
import type { DataMessage } from '../src/transport/data-channels';
import { FakeDataChannel, FakePeerConnection } from './support/fake-webrtc';

const send = { topic: 'count', isReliable: true, to: [] };
const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => Uint8Array.of(...values);

let pc: FakePeerConnection;
let received: DataMessage[];
let channels: DataChannels;

/** The channels that were opened for a topic. */
const outbound = (topic: string): FakeDataChannel[] => pc.channels.filter(({ label }) => label === topic);

beforeEach(() => {
  pc = new FakePeerConnection({});
  received = [];
  channels = new DataChannels(pc as unknown as RTCPeerConnection, (message) => received.push(message));
});

describe('frames', () => {
  it('name their addressees', () => {
    expect(frameData('hi', { ...send, to: ['bob', 'é'] })).toEqual(
      bytes(1, 2, 3, 98, 111, 98, 2, 0xc3, 0xa9, 104, 105),
    );
    expect(frameData(bytes(7), send)).toEqual(bytes(0, 0, 7));
  });

  it('name the sender', () => {
    const payload = bytes(104, 105);
    expect(parseData(bytes(1, 1, 3, 98, 111, 98, 104, 105))).toEqual({ identity: 'bob', payload, isText: true, hasGap: false });
    expect(parseData(bytes(2, 1, 1, 98))).toMatchObject({ identity: 'b', isText: false, hasGap: true });
  });

  it.each([[[]], [[0]], [[0, 0, 1]], [[0, 1]], [[0, 1, 2, 98]]])('are not %j', (values) => {
    expect(parseData(bytes(...values))).toBeUndefined();
  });

  it.each([
    ['TOO_LARGE', 64_001, send],
    ['TOO_LARGE', 15_001, { ...send, isReliable: false }],
    ['BAD_ARGUMENT', 1, { ...send, topic: 'no spaces' }],
    ['BAD_ARGUMENT', 1, { ...send, topic: '' }],
    ['BAD_ARGUMENT', 1, { ...send, topic: 't'.repeat(65) }],
    ['BAD_ARGUMENT', 1, { ...send, to: [''] }],
    ['BAD_ARGUMENT', 1, { ...send, to: Array.from({ length: 101 }, () => 'x') }],
  ])('are refused with %s', (code, length, options) => {
    expect(() => frameData(new Uint8Array(length), options)).toThrow(expect.objectContaining({ code }));
  });
});

describe('a topic', () => {
  it('is opened when it is first used, once per kind of delivery', async () => {
    const sending = [channels.publish('1', send), channels.publish('2', send), channels.publish('3', { ...send, isReliable: false })];
    const [reliable, lossy] = outbound('count');
    expect([reliable?.maxRetransmits, lossy?.maxRetransmits]).toEqual([null, 0]);
    reliable?.become('open');
    lossy?.become('open');
    await Promise.all(sending);
    expect([reliable?.sent.length, lossy?.sent.length]).toEqual([2, 1]);
  });

  it('that the server closed fails, and is opened anew by the next message', async () => {
    const failing = channels.publish('1', send);
    outbound('count')[0]?.become('closed');
    await expect(failing).rejects.toMatchObject({ name: 'ConnectionError' });
    const sending = channels.publish('2', send);
    outbound('count')[1]?.become('open');
    await sending;
    expect(outbound('count')[1]?.sent).toHaveLength(1);
  });

  it('waits while much is buffered; what may be lost is dropped instead', async () => {
    for (const isReliable of [true, false]) {
      const opening = channels.publish('1', { ...send, isReliable });
      outbound('count').at(-1)?.become('open');
      await opening;
    }
    const [reliable, lossy] = outbound('count');
    for (const channel of [reliable, lossy]) if (channel) channel.bufferedAmount = 2 * 1024 * 1024;
    await channels.publish('2', { ...send, isReliable: false });
    expect(lossy?.sent).toHaveLength(1);
    const sending = channels.publish('2', send);
    reliable?.dispatchEvent(new Event('bufferedamountlow'));
    await sending;
    expect(reliable?.sent).toHaveLength(2);
  });
});

describe('channels of the server', () => {
  it('bring messages; others and what is not a frame are passed over', () => {
    const theirs = new FakeDataChannel('pointer', { protocol: 'mrtc.data.v1', maxRetransmits: 0 });
    const foreign = new FakeDataChannel('x', {});
    pc.offerChannel(theirs);
    pc.offerChannel(foreign);
    theirs.say(bytes(1, 1, 1, 98, 104).buffer);
    theirs.say('text');
    theirs.say(bytes(9).buffer);
    foreign.say(bytes(1, 1, 1, 98, 104).buffer);
    expect(received).toEqual([
      { topic: 'pointer', isReliable: false, identity: 'b', payload: bytes(104), isText: true, hasGap: false },
    ]);
  });
});
