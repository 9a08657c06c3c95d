/** What the page and the worker tell each other. */

import type { OpenFailure } from './cryptor';
import type { CipherBits } from './keys';

/** How a sender or receiver is told to the worker. */
export interface PipeOptions {
  /** Chosen by the page, unique in the worker. */
  id: number;
  /** True: encrypt; false: decrypt. */
  isSender: boolean;
  /** Sound or picture. */
  kind: string;
}

/** What a receiver receives. */
export interface Assignment {
  /** Whose frames; undefined: nobody's, they are dropped. */
  identity: string | undefined;
  /** True: frames pass as they are. */
  isPlain: boolean;
}

/** From the page. */
export type ToWorker =
  | { op: 'start'; bits: CipherBits }
  | { op: 'key'; identity: string; keyIndex: number; material: ArrayBuffer }
  | { op: 'send'; identity: string; keyIndex: number; epoch: number }
  | { op: 'assign'; id: number; assignment: Assignment }
  | { op: 'codecs'; payloadTypes: Record<number, string> }
  /** Browsers without RTCRtpScriptTransform: streams of `createEncodedStreams`. */
  | { op: 'pipe'; options: PipeOptions; readable: ReadableStream; writable: WritableStream };

/** From the worker. */
export type FromWorker =
  /** Frames of this receiver cannot be decrypted; told once until `opened`. */
  | { op: 'failed'; id: number; failure: OpenFailure; keyIndex: number }
  /** They can again. */
  | { op: 'opened'; id: number }
  /** A key is needed; told again after some seconds while it is. */
  | { op: 'wanted'; identity: string; keyIndex: number };
