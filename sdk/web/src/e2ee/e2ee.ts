/** End-to-end encryption of a room: holds the keys, and puts a transform on every RTP sender and receiver. */

import { E2EE_MIN_KEY_BYTES, E2EE_PASSPHRASE_ITERATIONS, E2EE_ROTATION_DELAY_MS } from '../defaults';
import { EncryptionError, MrtcError, StateError } from '../errors';
import type { EncryptionErrorCode } from '../errors';
import { logger } from '../logger';
import type { E2eeKey, E2eeOptions } from '../options';
import type { OpenFailure } from './cryptor';
import type { Assignment, FromWorker, PipeOptions, ToWorker } from './messages';

/** What is received in a slot, as the roster knows it. Internal. */
export interface SlotOwner<P> {
  /** Its publisher. */
  identity: string;
  /** What the publisher says of it. */
  isEncrypted: boolean;
  /** Given back with failures. */
  place: P;
}

/** What a room is told. Internal. */
export interface E2eeHost<P> {
  /** Frames of this place cannot be decrypted. */
  failed: (error: EncryptionError, place: P) => void;
  /** They can again. */
  restored: (place: P) => void;
}

interface KeyEntry {
  identity: string;
  index: number;
  key: E2eeKey;
}

type EncodedStreams = () => { readable: ReadableStream; writable: WritableStream };

const FAILURES: Record<OpenFailure, [EncryptionErrorCode, string]> = {
  'key-missing': ['ENCRYPTION_KEY_MISSING', 'the key of this track is not known'],
  'key-wrong': ['ENCRYPTION_KEY_WRONG', 'this track was encrypted with another key'],
  'not-encrypted': ['ENCRYPTION_ABSENT', 'this track is not encrypted'],
};

const hasScriptTransform = (): boolean => typeof RTCRtpScriptTransform !== 'undefined';

/** Keys of a room; `room.e2ee`. The server sees none of them. */
export class E2ee<P = unknown> {
  readonly #options: E2eeOptions;
  readonly #host: E2eeHost<P>;
  readonly #keys = new Map<string, KeyEntry>();
  readonly #ids = new WeakMap<RTCRtpReceiver, number>();
  readonly #owners = new Map<number, SlotOwner<P>>();
  #worker: Worker | undefined;
  #room: { name: string; identity: string } | undefined;
  #sendingIndex: number | undefined;
  #epoch = 0;
  #lastId = 0;
  #rotation: ReturnType<typeof setTimeout> | undefined;

  constructor(options: E2eeOptions, host: E2eeHost<P>) {
    const { key, passphrase, keyProvider } = options;
    if ([key, passphrase, keyProvider].filter((one) => one !== undefined).length !== 1) {
      throw new MrtcError('BAD_ARGUMENT', 'e2ee takes one of key, passphrase and keyProvider');
    }
    this.#options = options;
    this.#host = host;
    const shared = key ?? passphrase;
    if (shared !== undefined) this.#remember({ identity: '', index: 0, key: shared });
  }

  /** The index of the key with which own frames are encrypted; undefined: none yet, nothing is sent. */
  get keyIndex(): number | undefined {
    return this.#sendingIndex;
  }

  /**
   * Sets a key. Without `identity` it is the own one, which in a room with a shared key is everybody's: frames of others
   * can be decrypted with it at once, own frames are encrypted with it a second later, so that a change that all make at
   * about the same time is not noticed. Keys with other indices stay valid for receiving.
   *
   * @param key text (a passphrase), or at least 16 bytes
   * @param options `index`: 0 to 255, default 0; `identity`: whose key it is
   * @throws MrtcError BAD_ARGUMENT; StateError with a keyProvider before the join
   */
  async setKey(key: E2eeKey, options: { index?: number; identity?: string } = {}): Promise<void> {
    const { index = 0 } = options;
    const isOwn = options.identity === undefined || options.identity === this.#room?.identity;
    const identity = options.identity ?? (this.#options.keyProvider ? this.#room?.identity : '');
    if (identity === undefined) throw new StateError('with a keyProvider, the own identity is known after the join');
    const entry = { identity, index, key };
    this.#remember(entry);
    if (!this.#room) return;
    await this.#tellKey(entry);
    if (isOwn) this.#sendWith(index, this.#sendingIndex === undefined ? 0 : E2EE_ROTATION_DELAY_MS);
  }

  /**
   * Goes on to the next key made of the present own one. Receivers follow by themselves. Who learns the new key cannot
   * find the old one; who has the old one can make the new one, so this locks nobody out: use `setKey` for that.
   */
  ratchet(): void {
    if (this.#sendingIndex === undefined) return;
    this.#epoch = Math.min(255, this.#epoch + 1);
    this.#tellSending();
  }

  // What the room and its transports call

  /** @throws MrtcError NOT_SUPPORTED if the browser has no encoded transforms. Internal. */
  checkSupport(): void {
    if (hasScriptTransform() || 'createEncodedStreams' in RTCRtpSender.prototype) return;
    throw new MrtcError('NOT_SUPPORTED', 'this browser cannot encrypt frames');
  }

  /** What the peer connection must be made with. Internal. */
  get connectionOptions(): RTCConfiguration {
    // Chromium before RTCRtpScriptTransform gives encoded streams only if it knows from the start.
    return hasScriptTransform() ? {} : ({ encodedInsertableStreams: true } as RTCConfiguration);
  }

  /** To be called before any frame flows. Internal. */
  attach(end: RTCRtpSender | RTCRtpReceiver, kind: string): void {
    const isSender = end instanceof RTCRtpSender;
    const options: PipeOptions = { id: ++this.#lastId, isSender, kind };
    if (!isSender) this.#ids.set(end, options.id);
    const worker = this.#startWorker();
    if (hasScriptTransform()) {
      end.transform = new RTCRtpScriptTransform(worker, options);
      return;
    }
    const { createEncodedStreams } = end as unknown as { createEncodedStreams: EncodedStreams };
    const { readable, writable } = createEncodedStreams.call(end);
    this.#tell({ op: 'pipe', options, readable, writable }, [readable, writable]);
  }

  /** After a negotiation, for browsers that do not name the codec of a frame. Internal. */
  learnCodecs(transceivers: readonly RTCRtpTransceiver[]): void {
    const payloadTypes: Record<number, string> = {};
    for (const { sender, receiver } of transceivers) {
      for (const { payloadType, mimeType } of [...sender.getParameters().codecs, ...receiver.getParameters().codecs]) {
        payloadTypes[payloadType] = mimeType;
      }
    }
    this.#tell({ op: 'codecs', payloadTypes });
  }

  /** What a slot carries now. Internal. */
  assign(receiver: RTCRtpReceiver, owner: SlotOwner<P> | undefined): void {
    const id = this.#ids.get(receiver);
    if (id === undefined) return;
    const before = this.#owners.get(id);
    if (owner) this.#owners.set(id, owner);
    else this.#owners.delete(id);
    const assignment = this.#assignment(owner);
    const old = this.#assignment(before);
    if (assignment.identity !== old.identity || assignment.isPlain !== old.isPlain) this.#tell({ op: 'assign', id, assignment });
  }

  /** The room is joined: keys depend on its name and the own identity. Internal. */
  enter(name: string, identity: string): void {
    this.#room = { name, identity };
    this.#begin(identity).catch((error: unknown) => logger.error('end-to-end encryption has no key', error));
  }

  /** The room is left. Keys that were set stay for the next `connect`. Internal. */
  leave(): void {
    clearTimeout(this.#rotation);
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#room = undefined;
    this.#sendingIndex = undefined;
    this.#epoch = 0;
    this.#owners.clear();
  }

  async #begin(identity: string): Promise<void> {
    const own = this.#options.keyProvider ? identity : '';
    if (this.#options.keyProvider && ![...this.#keys.values()].some((entry) => entry.identity === own)) {
      await this.#askProvider(identity, 0);
    }
    for (const entry of this.#keys.values()) await this.#tellKey(entry);
    const newest = [...this.#keys.values()].filter((entry) => entry.identity === own).at(-1);
    if (newest && this.#sendingIndex === undefined) this.#sendWith(newest.index, 0);
  }

  #remember(entry: KeyEntry): void {
    const { index, key, identity } = entry;
    if (!Number.isInteger(index) || index < 0 || index > 255) {
      throw new MrtcError('BAD_ARGUMENT', 'a key index is an integer of 0 to 255');
    }
    if (typeof key === 'string' ? key === '' : key.byteLength < E2EE_MIN_KEY_BYTES) {
      throw new MrtcError('BAD_ARGUMENT', `a key is text or at least ${E2EE_MIN_KEY_BYTES} bytes`);
    }
    const name = `${index}:${identity}`;
    this.#keys.delete(name); // so that the newest is last
    this.#keys.set(name, entry);
  }

  async #tellKey({ identity, index, key }: KeyEntry): Promise<void> {
    const room = this.#room;
    if (!room) return;
    const material = typeof key === 'string' ? await fromPassphrase(key, room.name) : copyOf(key);
    this.#tell({ op: 'key', identity, keyIndex: index, material }, [material]);
  }

  #sendWith(index: number, delayMs: number): void {
    clearTimeout(this.#rotation);
    const begin = (): void => {
      this.#sendingIndex = index;
      this.#epoch = 0;
      this.#tellSending();
    };
    if (delayMs === 0) begin();
    else this.#rotation = setTimeout(begin, delayMs);
  }

  #tellSending(): void {
    if (!this.#room || this.#sendingIndex === undefined) return;
    this.#tell({ op: 'send', identity: this.#room.identity, keyIndex: this.#sendingIndex, epoch: this.#epoch });
  }

  #assignment(owner: SlotOwner<P> | undefined): Assignment {
    return { identity: owner?.identity, isPlain: owner !== undefined && !owner.isEncrypted && this.#options.acceptPlain === true };
  }

  #startWorker(): Worker {
    if (this.#worker) return this.#worker;
    const make =
      this.#options.worker ?? (() => new Worker(new URL('./mrtc-e2ee-worker.mjs', import.meta.url), { type: 'module' }));
    const worker = make();
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#told(data);
    worker.onerror = (event) => logger.error(`the worker of end-to-end encryption failed: ${event.message}`);
    this.#worker = worker;
    this.#tell({ op: 'start', bits: this.#options.keyBits ?? 128 });
    return worker;
  }

  #tell(message: ToWorker, transfer: Transferable[] = []): void {
    this.#worker?.postMessage(message, transfer);
  }

  #told(message: FromWorker): void {
    if (message.op === 'wanted') {
      this.#askProvider(message.identity, message.keyIndex).catch((error: unknown) => logger.warn('keyProvider', error));
      return;
    }
    const owner = this.#owners.get(message.id);
    if (!owner) return;
    if (message.op === 'opened') return this.#host.restored(owner.place);
    const [code, text] = FAILURES[message.failure];
    this.#host.failed(new EncryptionError(code, text, message.keyIndex), owner.place);
  }

  async #askProvider(identity: string, index: number): Promise<void> {
    const key = await this.#options.keyProvider?.(identity, index);
    if (key === undefined) return;
    const entry = { identity, index, key };
    this.#remember(entry);
    await this.#tellKey(entry);
  }
}

/** PBKDF2 (RFC 8018); the room's name is the salt, so that one passphrase gives another key in each room. */
async function fromPassphrase(passphrase: string, room: string): Promise<ArrayBuffer> {
  const encoder = new TextEncoder();
  const key = await crypto.subtle.importKey('raw', encoder.encode(passphrase), 'PBKDF2', false, ['deriveBits']);
  const salt = encoder.encode(`mrtc e2ee ${room}`);
  const how = { name: 'PBKDF2', hash: 'SHA-256', salt, iterations: E2EE_PASSPHRASE_ITERATIONS };
  return crypto.subtle.deriveBits(how, key, 256);
}

function copyOf(key: BufferSource): ArrayBuffer {
  const view = ArrayBuffer.isView(key) ? new Uint8Array(key.buffer, key.byteOffset, key.byteLength) : new Uint8Array(key);
  return Uint8Array.from(view).buffer;
}
