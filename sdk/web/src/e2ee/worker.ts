/** The worker in which frames are encrypted and decrypted, so that a busy page delays none. An entry of its own. */

import type { Opened, OpenFailure, SendingKey } from './cryptor';
import { FrameSealer, open } from './cryptor';
import { KeyRing } from './keys';
import type { Assignment, FromWorker, PipeOptions, ToWorker } from './messages';
import type { FrameCodec } from './wire';

/** A track change or rotation makes some frames fail; that many in a row are a condition. */
const FAILURE_TOLERANCE = 10;
/** Between two requests for the same key, and between two requests for a key frame. */
const REPEAT_AFTER_MS = 1_000;
/**
 * Frames wait so long for a key that is on its way, so that a rotation costs a pause and not a key frame. The browser
 * keeps the frames behind (Chromium at most 60 of a receiver). A key that did not come is not waited for again.
 */
const KEY_WAIT_MS = 1_500;

type EncodedFrame = RTCEncodedAudioFrame | RTCEncodedVideoFrame;

/** Of lib.webworker, which cannot be loaded beside lib.dom. */
interface RTCRtpScriptTransformer {
  readonly options: PipeOptions;
  readonly readable: ReadableStream<EncodedFrame>;
  readonly writable: WritableStream<EncodedFrame>;
  generateKeyFrame: () => Promise<unknown>;
  sendKeyFrameRequest: () => Promise<unknown>;
}

/** What both APIs give; the transformer is missing with `createEncodedStreams`. */
interface Pipe {
  options: PipeOptions;
  readable: ReadableStream<EncodedFrame>;
  writable: WritableStream<EncodedFrame>;
  transformer?: RTCRtpScriptTransformer;
}

let keys = new KeyRing(128);
let sending: SendingKey | undefined;
let payloadTypes: Record<number, string> = {};
const assignments = new Map<number, Assignment>();
/** Senders that had to drop frames since there was no key. */
const starving = new Set<RTCRtpScriptTransformer>();
const wantedAt = new Map<string, number>();
const missing = new Set<string>();
const waiting = new Set<() => void>();

const tell = (message: FromWorker): void => postMessage(message);

function codecOf(frame: EncodedFrame, kind: string): FrameCodec | undefined {
  if (kind === 'audio') return 'audio';
  const { mimeType, payloadType } = frame.getMetadata() as { mimeType?: string; payloadType?: number };
  const name = (mimeType ?? payloadTypes[payloadType ?? -1] ?? '').toLowerCase().replace('video/', '');
  return name === 'vp8' || name === 'vp9' || name === 'h264' || name === 'av1' ? name : undefined;
}

function want(identity: string, keyIndex: number): void {
  const name = `${keyIndex}:${identity}`;
  if (performance.now() - (wantedAt.get(name) ?? -REPEAT_AFTER_MS) < REPEAT_AFTER_MS) return;
  wantedAt.set(name, performance.now());
  tell({ op: 'wanted', identity, keyIndex });
}

/** Asks for a key; true if it is worth trying again. */
async function keyCame(identity: string, keyIndex: number): Promise<boolean> {
  want(identity, keyIndex);
  const name = `${keyIndex}:${identity}`;
  if (missing.has(name)) return false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let wake: () => void = () => undefined;
  const hasCome = await new Promise<boolean>((resolve) => {
    wake = () => resolve(true);
    waiting.add(wake);
    timer = setTimeout(() => resolve(false), KEY_WAIT_MS);
  });
  clearTimeout(timer);
  waiting.delete(wake);
  if (!hasCome) missing.add(name);
  return hasCome;
}

function keySet({ identity, keyIndex, material }: Extract<ToWorker, { op: 'key' }>): void {
  keys.set(identity, keyIndex, material);
  missing.clear();
  for (const wake of [...waiting]) wake();
}

function sealing({ options, transformer }: Pipe): TransformStream<EncodedFrame, EncodedFrame> {
  const sealer = new FrameSealer(keys);
  return new TransformStream({
    async transform(frame, controller) {
      const codec = codecOf(frame, options.kind);
      // Nothing leaves in the clear: a frame without key or of an unknown codec is dropped.
      const sealed = sending && codec && (await sealer.seal(codec, new Uint8Array(frame.data), sending));
      if (!sealed) {
        if (transformer && !sending && options.kind === 'video') starving.add(transformer);
        return;
      }
      frame.data = sealed.buffer.slice(sealed.byteOffset, sealed.byteOffset + sealed.byteLength) as ArrayBuffer;
      controller.enqueue(frame);
    },
  });
}

/** Decrypts the frames of one receiver, and tells when that does not work and when it does again. */
class Opening {
  readonly #options: PipeOptions;
  readonly #transformer: RTCRtpScriptTransformer | undefined;
  #failures = 0;
  #isTold = false;
  #isKeyFrameMissed = false;
  #keyFrameAskedAt = -REPEAT_AFTER_MS;

  constructor({ options, transformer }: Pipe) {
    this.#options = options;
    this.#transformer = transformer;
  }

  async transform(frame: EncodedFrame): Promise<EncodedFrame | undefined> {
    const assignment = assignments.get(this.#options.id);
    if (assignment?.isPlain) return frame;
    const codec = codecOf(frame, this.#options.kind);
    // Before the page knows whose track this slot carries; frames of a mapping that is not told yet.
    if (assignment?.identity === undefined || !codec) { this.#missed(frame); return; }
    const opened = await this.#open(codec, new Uint8Array(frame.data), assignment.identity);
    if ('failure' in opened) {
      this.#failed(opened.failure, opened.keyIndex);
      this.#missed(frame); return;
    }
    frame.data = opened.frame;
    this.#succeeded();
    return frame;
  }

  async #open(codec: FrameCodec, wire: Uint8Array, identity: string): Promise<Opened> {
    for (;;) {
      const opened = await open(keys, codec, wire, identity);
      const isMissing = 'failure' in opened && opened.failure === 'key-missing';
      if (!isMissing || !(await keyCame(identity, opened.keyIndex))) return opened;
    }
  }

  #missed(frame: EncodedFrame): undefined {
    this.#isKeyFrameMissed ||= 'type' in frame && frame.type === 'key';
    return undefined;
  }

  #failed(failure: OpenFailure, keyIndex: number): void {
    if (++this.#failures < FAILURE_TOLERANCE || this.#isTold) return;
    this.#isTold = true;
    tell({ op: 'failed', id: this.#options.id, failure, keyIndex });
  }

  #succeeded(): void {
    this.#failures = 0;
    if (this.#isTold) tell({ op: 'opened', id: this.#options.id });
    this.#isTold = false;
    if (this.#isKeyFrameMissed) this.#askKeyFrame();
  }

  /** What was dropped may have been what the decoder waits for. */
  #askKeyFrame(): void {
    if (performance.now() - this.#keyFrameAskedAt < REPEAT_AFTER_MS) return;
    this.#keyFrameAskedAt = performance.now();
    this.#isKeyFrameMissed = false;
    this.#transformer?.sendKeyFrameRequest().catch(() => undefined);
  }
}

function opening(pipe: Pipe): TransformStream<EncodedFrame, EncodedFrame> {
  const opener = new Opening(pipe);
  return new TransformStream({
    async transform(frame, controller) {
      const opened = await opener.transform(frame);
      if (opened) controller.enqueue(opened);
    },
  });
}

function connect(pipe: Pipe): void {
  const transform = pipe.options.isSender ? sealing(pipe) : opening(pipe);
  // Ends with the peer connection; the browser then breaks the pipe, which is no error.
  pipe.readable.pipeThrough(transform).pipeTo(pipe.writable).catch(() => undefined);
}

addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  switch (data.op) {
    case 'start':
      keys = new KeyRing(data.bits);
      break;
    case 'key':
      keySet(data);
      break;
    case 'send':
      sending = { identity: data.identity, keyIndex: data.keyIndex, epoch: data.epoch };
      for (const transformer of starving) transformer.generateKeyFrame().catch(() => undefined);
      starving.clear();
      break;
    case 'assign':
      assignments.set(data.id, data.assignment);
      break;
    case 'codecs':
      payloadTypes = data.payloadTypes;
      break;
    case 'pipe':
      connect(data);
      break;
  }
});

addEventListener('rtctransform', (event) => {
  const { transformer } = event as Event & { transformer: RTCRtpScriptTransformer };
  const { options, readable, writable } = transformer;
  connect({ options, readable, writable, transformer });
});
