/** The form of encrypted frames, and the keys. What browsers make of them is tested in tests/e2e of the repository. */

import { describe, expect, it } from 'vitest';
import { FrameSealer, open } from '../src/e2ee/cryptor';
import { E2ee } from '../src/e2ee/e2ee';
import { KeyRing } from '../src/e2ee/keys';
import type { FrameCodec } from '../src/e2ee/wire';
import { OVERHEAD_BYTES, escape, unescape, unwrap } from '../src/e2ee/wire';

const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => Uint8Array.from(values);
const material = (value: number): ArrayBuffer => new Uint8Array(16).fill(value).buffer;
const random = (length: number): Uint8Array<ArrayBuffer> => crypto.getRandomValues(new Uint8Array(length));

function ring(value = 1, identity = ''): KeyRing {
  const keys = new KeyRing(128);
  keys.set(identity, 0, material(value));
  return keys;
}

const SENDING = { identity: 'alice', keyIndex: 0, epoch: 0 };

async function sealed(codec: FrameCodec, frame: Uint8Array<ArrayBuffer>, keys = ring()): Promise<Uint8Array> {
  const wire = await new FrameSealer(keys).seal(codec, frame, SENDING);
  if (!wire) throw new Error('not sealed');
  return wire;
}

const VP8_KEY = bytes(0x10, 2, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 9, 9, 9, 9);
const SPS = [0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1f, 0xda, 0x02, 0x80];
const H264_KEY = bytes(...SPS, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0, 0, 1, 0x65, 0x88, 0x84, 0, 0, 3, 1, 7, 7, 7);
const H264_TINY = bytes(0, 0, 0, 1, 0x41, 0x9a, 0x02);
/** Temporal delimiter, sequence header, frame. */
const AV1_KEY = bytes(0x12, 0, 0x0a, 3, 1, 2, 3, 0x32, 4, 5, 6, 7, 8);

describe('encrypted frames', () => {
  it.each<[FrameCodec, string, Uint8Array<ArrayBuffer>]>([
    ['vp8', 'key frame', VP8_KEY],
    ['vp8', 'other frame', bytes(0x11, 1, 2, 3, 4)],
    ['vp8', 'frame shorter than its hint', bytes(0x11)],
    ['vp8', 'empty frame', bytes()],
    ['vp9', 'frame', bytes(0x82, 1, 2)],
    ['h264', 'key frame', H264_KEY],
    ['h264', 'slice shorter than its hint', H264_TINY],
    ['av1', 'key frame', AV1_KEY],
    ['audio', 'frame', bytes(0x78, 1, 2, 3)],
    ['audio', 'silence', bytes(0x78)],
  ])('%s %s comes back as it was', async (codec, _, frame) => {
    const keys = ring();
    for (let i = 0; i < 20; i++) {
      const opened = await open(keys, codec, await sealed(codec, frame, keys), 'alice');
      expect(opened).toEqual({ frame: frame.buffer });
    }
  });

  it('keeps in the clear what servers and packetizers read', async () => {
    expect((await sealed('vp8', VP8_KEY)).subarray(0, 10)).toEqual(VP8_KEY.subarray(0, 10));
    expect((await sealed('audio', bytes(0x78, 1))).at(0)).toBe(0x78);
    const h264 = await sealed('h264', H264_KEY);
    expect([...h264.subarray(0, SPS.length)]).toEqual(SPS);
    expect(Buffer.from(h264).includes(Buffer.from([0, 0, 0, 1, 0x65, 0x88, 0x84]))).toBe(true);
    const av1 = await sealed('av1', AV1_KEY);
    expect([...av1.subarray(0, 7)]).toEqual([0x0a, 3, 1, 2, 3, 0x32, AV1_KEY.length + OVERHEAD_BYTES]);
  });

  it('has one slice only, however zeros fall', async () => {
    const frame = bytes(0, 0, 0, 1, 0x41, ...new Array<number>(3000).fill(0));
    const keys = ring();
    for (let i = 0; i < 30; i++) {
      const wire = Buffer.from(await sealed('h264', frame, keys));
      expect(wire.indexOf(Buffer.from([0, 0, 1]), 4)).toBe(-1);
      expect(wire.at(-1)).not.toBe(0);
    }
  });

  it('survives what browsers rewrite: longer parameter sets and start codes', async () => {
    const keys = ring();
    const wire = await sealed('h264', H264_KEY, keys);
    const rewritten = Uint8Array.from([0, 0, 0, 1, 0x67, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...wire.subarray(SPS.length)]);
    expect(await open(keys, 'h264', rewritten, 'alice')).toEqual({ frame: H264_KEY.buffer });
  });

  it('differ each time, and never repeat a counter of a context', async () => {
    const keys = ring();
    const sealer = new FrameSealer(keys);
    const frames = await Promise.all(Array.from({ length: 50 }, () => sealer.seal('vp8', VP8_KEY, SENDING)));
    const counters = frames.map((wire) => wire && unwrap('vp8', wire)?.trailer.counter);
    expect(new Set(counters).size).toBe(50);
  });

  it('tells a wrong key, a missing key and what is not encrypted', async () => {
    const wire = await sealed('vp8', VP8_KEY);
    expect(await open(ring(2), 'vp8', wire, 'alice')).toEqual({ failure: 'key-wrong', keyIndex: 0 });
    expect(await open(new KeyRing(128), 'vp8', wire, 'alice')).toEqual({ failure: 'key-missing', keyIndex: 0 });
    expect(await open(ring(), 'vp8', VP8_KEY, 'alice')).toEqual({ failure: 'not-encrypted', keyIndex: 0 });
    const changed = Uint8Array.from(wire);
    changed[15] = (changed[15] ?? 0) ^ 1;
    expect(await open(ring(), 'vp8', changed, 'alice')).toEqual({ failure: 'key-wrong', keyIndex: 0 });
  });

  it.each<FrameCodec>(['vp8', 'vp9', 'h264', 'av1', 'audio'])('%s: foreign bytes are refused, not thrown at', async (codec) => {
    const keys = ring();
    for (let length = 0; length < 200; length++) {
      const noise = random(length);
      if (length > 0 && length % 2) noise[length - 1] = 0xe1;
      const opened = await open(keys, codec, noise, 'alice');
      expect('failure' in opened).toBe(true);
    }
  });

  it('escapes and unescapes anything, also across the border', () => {
    for (let i = 0; i < 200; i++) {
      const some = random(64).map((value) => value % 4);
      for (const zeros of [0, 1, 2]) expect(unescape(escape(some, zeros), zeros)).toEqual(some);
    }
  });
});

describe('keys', () => {
  it('are a participant’s own if there is one, else the shared one', async () => {
    const keys = ring(1);
    keys.set('bob', 0, material(2));
    const wire = await sealed('vp9', bytes(1, 2, 3), ring(2));
    expect('frame' in (await open(keys, 'vp9', wire, 'bob'))).toBe(true);
    expect('frame' in (await open(keys, 'vp9', wire, 'alice'))).toBe(false);
  });

  it('are followed as they are ratcheted, without being told', async () => {
    const sender = ring();
    const wire = await new FrameSealer(sender).seal('vp9', bytes(1, 2, 3), { ...SENDING, epoch: 3 });
    expect(await open(ring(), 'vp9', wire ?? bytes(), 'alice')).toEqual({ frame: bytes(1, 2, 3).buffer });
  });

  it('are checked when they are given', async () => {
    const host = { failed: () => undefined, restored: () => undefined };
    expect(() => new E2ee({}, host)).toThrow('one of');
    expect(() => new E2ee({ key: new Uint8Array(15) }, host)).toThrow('at least 16 bytes');
    expect(() => new E2ee({ passphrase: '' }, host)).toThrow('text');
    const e2ee = new E2ee({ passphrase: 'a' }, host);
    await expect(e2ee.setKey('b', { index: 256 })).rejects.toThrow('0 to 255');
  });
});
