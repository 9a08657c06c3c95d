/** Keys of the participants and what is derived of them. Lives in the worker. */

import type { Trailer } from './wire';

/** Length of AES keys. */
export type CipherBits = 128 | 256;

/** Derived keys that are kept for one participant's frames; a sender has one for each of its tracks and keys. */
const MAX_FRAME_KEYS = 64;

const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);
const RATCHET = text('mrtc e2ee ratchet');
const FRAME = text('mrtc e2ee frame');

/** HKDF with SHA-256 (RFC 5869). */
async function hkdf(material: BufferSource, salt: BufferSource, info: BufferSource, bits: number): Promise<ArrayBuffer> {
  const key = await crypto.subtle.importKey('raw', material, 'HKDF', false, ['deriveBits']);
  return crypto.subtle.deriveBits({ name: 'HKDF', hash: 'SHA-256', salt, info }, key, bits);
}

/** One key as it was set, and its ratcheted followers. */
class KeyChain {
  readonly #bits: CipherBits;
  /** By epoch; each is made of the one before it, and none tells anything of that. */
  readonly #materials: Promise<ArrayBuffer>[];
  readonly #frameKeys = new Map<string, Promise<CryptoKey>>();

  constructor(material: ArrayBuffer, bits: CipherBits) {
    this.#bits = bits;
    this.#materials = [Promise.resolve(material)];
  }

  frameKey(epoch: number, context: Uint8Array): Promise<CryptoKey> {
    const name = `${epoch}:${context.join()}`;
    const known = this.#frameKeys.get(name);
    if (known) return known;
    const key = this.#derive(epoch, context);
    this.#frameKeys.set(name, key);
    const [oldest] = this.#frameKeys.keys();
    if (this.#frameKeys.size > MAX_FRAME_KEYS && oldest !== undefined) this.#frameKeys.delete(oldest);
    return key;
  }

  async #derive(epoch: number, context: Uint8Array): Promise<CryptoKey> {
    const raw = await hkdf(await this.#material(epoch), Uint8Array.from(context), FRAME, this.#bits);
    return crypto.subtle.importKey('raw', raw, 'AES-GCM', false, ['encrypt', 'decrypt']);
  }

  /** At most 255 steps, since an epoch is a byte. */
  #material(epoch: number): Promise<ArrayBuffer> {
    let last = this.#materials.at(-1);
    while (last && this.#materials.length <= epoch) {
      last = last.then((material) => hkdf(material, new Uint8Array(), RATCHET, 256));
      this.#materials.push(last);
    }
    return this.#materials[epoch] ?? Promise.reject(new Error('no key'));
  }
}

/** All keys. */
export class KeyRing {
  readonly #bits: CipherBits;
  readonly #chains = new Map<string, KeyChain>();

  constructor(bits: CipherBits) {
    this.#bits = bits;
  }

  /** Sets a participant's key; identity `''`: that of all who have none of their own. */
  set(identity: string, keyIndex: number, material: ArrayBuffer): void {
    this.#chains.set(`${keyIndex}:${identity}`, new KeyChain(material, this.#bits));
  }

  /** The key of frames with this trailer; undefined: the participant's key is not known. */
  frameKey(identity: string, { keyIndex, epoch, context }: Omit<Trailer, 'counter'>): Promise<CryptoKey> | undefined {
    const chain = this.#chains.get(`${keyIndex}:${identity}`) ?? this.#chains.get(`${keyIndex}:`);
    return chain?.frameKey(epoch, context);
  }
}
