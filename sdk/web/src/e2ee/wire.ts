/**
 * The form of an encrypted frame. Pure.
 *
 *   hint | body = ciphertext, tag (16) | trailer = context (8), counter (4), epoch (1), key index (1), 0xE1
 *
 * The whole encoded frame is encrypted. The hint is a copy of what packetizers, the media server and the receiving
 * browser read of the codec (key frame, picture size, parameter sets); it is not trusted and thrown away at decryption,
 * so it does no harm that browsers rewrite parts of it on the way (start codes, the VUI of an H.264 SPS).
 *
 * - VP8: the first 10 bytes of a key frame, 3 of others (RFC 6386 section 9.1): size and key-frame bit.
 * - VP9: nothing; its payload descriptor is outside of the frame.
 * - H.264: SPS and PPS, then the NAL header and the first bytes of the first slice (Chromium reads the PPS id there).
 *   Body and trailer follow inside of that NAL unit, with emulation prevention (ITU-T H.264 section 7.4.1.1).
 * - AV1: the sequence header; body and trailer are the payload of one frame OBU, since packetizers cut at OBUs and drop
 *   size fields, which the receiving side adds again.
 * - Sound: the first byte (Opus: the TOC).
 */

/** Codecs whose frames can be encrypted, as in the lower-case second half of a MIME type. */
export type FrameCodec = 'vp8' | 'vp9' | 'h264' | 'av1' | 'audio';

/** What the trailer says. */
export interface Trailer {
  /** Drawn at random by the sender, once for each RTP sender and key: no two frames share a key and a counter. */
  context: Uint8Array;
  /** Counts the frames of a context. */
  counter: number;
  /** How often the key was ratcheted. */
  epoch: number;
  /** Which key of the sender. */
  keyIndex: number;
}

/** Bytes that an encrypted frame is longer at least, the hint not counted. */
export const OVERHEAD_BYTES = 16 + 15;

const TRAILER_BYTES = 15;
const CONTEXT_BYTES = 8;
/** Ends every encrypted frame. Not zero: zeros at the end of a NAL unit get lost. */
const MAGIC = 0xe1;

const VP8_KEY_HINT = 10;
const VP8_DELTA_HINT = 3;
/** The NAL header, then first_mb_in_slice, slice_type and pic_parameter_set_id. */
const H264_SLICE_HINT = 1 + 5;
const OBU_SEQUENCE_HEADER = 1;
const OBU_FRAME = 6;

/** The frame as it is sent, or undefined if the encoded frame has no form that could be hidden. */
export function wrap(codec: FrameCodec, frame: Uint8Array, sealed: Uint8Array, trailer: Trailer): Uint8Array | undefined {
  const body = concat([sealed, writeTrailer(trailer)]);
  switch (codec) {
    case 'h264': {
      const hint = h264Hint(frame);
      return hint && concat([hint, escape(body, trailingZeros(hint, hint.length))]);
    }
    case 'av1':
      return av1Wrap(frame, body);
    default:
      return concat([plainHint(codec, frame), body]);
  }
}

/** Ciphertext with tag, and trailer, of a frame as it was received; undefined if it is not one of ours. */
export function unwrap(codec: FrameCodec, wire: Uint8Array): { sealed: Uint8Array; trailer: Trailer } | undefined {
  const body = bodyOf(codec, wire);
  if (!body || body.length < OVERHEAD_BYTES || body[body.length - 1] !== MAGIC) return undefined;
  const at = body.length - TRAILER_BYTES;
  return { sealed: body.subarray(0, at), trailer: readTrailer(body, at) };
}

function bodyOf(codec: FrameCodec, wire: Uint8Array): Uint8Array | undefined {
  switch (codec) {
    case 'h264': {
      const slice = firstSlice(wire);
      const at = slice === undefined ? wire.length : slice + H264_SLICE_HINT;
      return at < wire.length ? unescape(wire.subarray(at), trailingZeros(wire, at)) : undefined;
    }
    case 'av1':
      return [...obus(wire)].find(({ type }) => type === OBU_FRAME)?.payload;
    default:
      return wire.subarray(hintLength(codec, wire));
  }
}

/** The first bytes of a frame; filled up if it is shorter (with ones: no VP8 key frame), so that the body's place is known. */
function plainHint(codec: FrameCodec, frame: Uint8Array): Uint8Array {
  const hint = new Uint8Array(hintLength(codec, frame)).fill(0xff);
  hint.set(frame.subarray(0, hint.length));
  return hint;
}

/** How much is in the clear; the same of a frame and of its encrypted form. */
function hintLength(codec: FrameCodec, bytes: Uint8Array): number {
  switch (codec) {
    case 'vp8':
      // RFC 6386 section 9.1: the lowest bit of the first byte is 0 in a key frame.
      return ((bytes[0] ?? 1) & 1) === 0 ? VP8_KEY_HINT : VP8_DELTA_HINT;
    case 'audio':
      return 1;
    default:
      return 0;
  }
}

function writeTrailer({ context, counter, epoch, keyIndex }: Trailer): Uint8Array {
  const bytes = new Uint8Array(TRAILER_BYTES);
  bytes.set(context);
  new DataView(bytes.buffer).setUint32(CONTEXT_BYTES, counter);
  bytes.set([epoch, keyIndex, MAGIC], CONTEXT_BYTES + 4);
  return bytes;
}

function readTrailer(bytes: Uint8Array, at: number): Trailer {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, TRAILER_BYTES);
  return {
    context: bytes.slice(at, at + CONTEXT_BYTES),
    counter: view.getUint32(CONTEXT_BYTES),
    epoch: view.getUint8(CONTEXT_BYTES + 4),
    keyIndex: view.getUint8(CONTEXT_BYTES + 5),
  };
}

// H.264 (Annex B byte stream)

/** Offsets of the NAL headers. */
function* nalUnits(stream: Uint8Array): Iterable<number> {
  for (let i = 0; i + 3 < stream.length; i++) {
    if (stream[i] === 0 && stream[i + 1] === 0 && stream[i + 2] === 1) {
      yield i + 3;
      i += 2;
    }
  }
}

const nalType = (stream: Uint8Array, at: number): number => (stream[at] ?? 0) & 0x1f;
const isSlice = (type: number): boolean => type === 1 || type === 5;

function firstSlice(stream: Uint8Array): number | undefined {
  for (const at of nalUnits(stream)) if (isSlice(nalType(stream, at))) return at;
  return undefined;
}

/** Parameter sets and the beginning of the first slice, with start codes of four bytes. */
function h264Hint(frame: Uint8Array): Uint8Array | undefined {
  const starts = [...nalUnits(frame)];
  const slice = starts.find((at) => isSlice(nalType(frame, at)));
  if (slice === undefined) return undefined;
  const parts: Uint8Array[] = [];
  for (const [i, at] of starts.entries()) {
    const type = nalType(frame, at);
    if (at > slice || (type !== 7 && type !== 8)) continue;
    const end = (starts[i + 1] ?? frame.length + 3) - 3;
    parts.push(START_CODE, frame.subarray(at, end - trailingZeros(frame, end)));
  }
  // Filled up, so that the body begins at the same place of every slice, however short.
  const head = new Uint8Array(H264_SLICE_HINT).fill(0xff);
  head.set(frame.subarray(slice, slice + H264_SLICE_HINT));
  return concat([...parts, START_CODE, head]);
}

const START_CODE = Uint8Array.of(0, 0, 0, 1);

function trailingZeros(bytes: Uint8Array, end: number): number {
  let count = 0;
  while (count < end && bytes[end - 1 - count] === 0) count++;
  return count;
}

/** Puts a 3 before every byte of 0 to 3 that follows two zeros; `zeros`: so many stand before the first byte. */
export function escape(bytes: Uint8Array, zeros = 0): Uint8Array {
  const out = new Uint8Array(bytes.length + Math.floor(bytes.length / 2) + 1);
  let length = 0;
  for (const byte of bytes) {
    if (zeros >= 2 && byte <= 3) {
      out[length++] = 3;
      zeros = 0;
    }
    out[length++] = byte;
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  return out.subarray(0, length);
}

/** Undoes `escape`. */
export function unescape(bytes: Uint8Array, zeros = 0): Uint8Array {
  const out = new Uint8Array(bytes.length);
  let length = 0;
  for (const byte of bytes) {
    if (zeros >= 2 && byte === 3) {
      zeros = 0;
      continue;
    }
    out[length++] = byte;
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  return out.subarray(0, length);
}

// AV1 (section 5.3: OBU header, extension, size)

interface Obu {
  type: number;
  /** Extension byte with temporal and spatial layer; undefined without one. */
  extension: number | undefined;
  payload: Uint8Array;
}

/** The OBUs of a frame; ends at the first that is not whole. */
function* obus(frame: Uint8Array): Iterable<Obu> {
  let at = 0;
  while (at < frame.length) {
    const header = frame[at++] ?? 0;
    const extension = header & 4 ? frame[at++] : undefined;
    let size = frame.length - at;
    if (header & 2) {
      const read = readLeb128(frame, at);
      if (!read) return;
      [size, at] = read;
    }
    if (size > frame.length - at) return;
    yield { type: (header >> 3) & 15, extension, payload: frame.subarray(at, at + size) };
    at += size;
  }
}

function av1Wrap(frame: Uint8Array, body: Uint8Array): Uint8Array {
  const all = [...obus(frame)];
  const hints = all.filter(({ type }) => type === OBU_SEQUENCE_HEADER).map(writeObu);
  const extension = all.find((obu) => obu.extension !== undefined)?.extension;
  return concat([...hints, writeObu({ type: OBU_FRAME, extension, payload: body })]);
}

function writeObu({ type, extension, payload }: Obu): Uint8Array {
  const header = (type << 3) | 2;
  const head = extension === undefined ? [header] : [header | 4, extension];
  return concat([Uint8Array.of(...head, ...leb128(payload.length)), payload]);
}

function leb128(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
}

/** Value and the place behind it. */
function readLeb128(bytes: Uint8Array, at: number): [number, number] | undefined {
  let value = 0;
  // Four bytes hold more than a frame can be long.
  for (let i = 0; i < 4; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) return undefined;
    value |= (byte & 0x7f) << (7 * i);
    if (!(byte & 0x80)) return [value, at + i + 1];
  }
  return undefined;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
