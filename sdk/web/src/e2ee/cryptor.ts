/** Encrypts the frames of one RTP sender, decrypts those of one RTP receiver. Lives in the worker. */

import type { KeyRing } from './keys';
import type { FrameCodec } from './wire';
import { unwrap, wrap } from './wire';

/** Why a frame could not be decrypted. */
export type OpenFailure = 'key-missing' | 'key-wrong' | 'not-encrypted';

const MAX_COUNTER = 0xffff_ffff;

/** What a sender uses now. */
export interface SendingKey {
  /** Whose keys. */
  identity: string;
  /** Which of them. */
  keyIndex: number;
  /** How often it was ratcheted. */
  epoch: number;
}

/** AES-GCM takes a nonce of 12 bytes; the key belongs to the context alone, so the counter suffices. */
function nonce(counter: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setUint32(8, counter);
  return bytes;
}

/** Encrypts. Frames of simulcast layers share the counter. */
export class FrameSealer {
  readonly #keys: KeyRing;
  #context = crypto.getRandomValues(new Uint8Array(8));
  #counter = 0;

  constructor(keys: KeyRing) {
    this.#keys = keys;
  }

  /** The frame to send; undefined: there is no key yet, or the frame cannot be hidden: it must not be sent. */
  async seal(codec: FrameCodec, frame: Uint8Array<ArrayBuffer>, sending: SendingKey): Promise<Uint8Array | undefined> {
    if (this.#counter === MAX_COUNTER) {
      this.#context = crypto.getRandomValues(new Uint8Array(8));
      this.#counter = 0;
    }
    // Taken before anything is awaited: no two frames may ever have the same.
    const trailer = { context: this.#context, counter: this.#counter++, ...sending };
    const key = await this.#keys.frameKey(sending.identity, trailer);
    if (!key) return undefined;
    const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv: nonce(trailer.counter) }, key, frame);
    return wrap(codec, frame, new Uint8Array(sealed), trailer);
  }
}

/** What became of a frame. */
export type Opened = { frame: ArrayBuffer } | { failure: OpenFailure; keyIndex: number };

/** Decrypts a frame of the participant with this identity. */
export async function open(
  keys: KeyRing,
  codec: FrameCodec,
  wire: Uint8Array,
  identity: string,
): Promise<Opened> {
  const parts = unwrap(codec, wire);
  if (!parts) return { failure: 'not-encrypted', keyIndex: 0 };
  const { sealed, trailer } = parts;
  const key = await keys.frameKey(identity, trailer);
  if (!key) return { failure: 'key-missing', keyIndex: trailer.keyIndex };
  try {
    const iv = nonce(trailer.counter);
    return { frame: await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, key, Uint8Array.from(sealed)) };
  } catch {
    return { failure: 'key-wrong', keyIndex: trailer.keyIndex };
  }
}
