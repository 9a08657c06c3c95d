/** Topics on the data channels of one peer connection, framed as docs/protocol.md says. */

import {
  DATA_MAX_BUFFERED_BYTES,
  DATA_MAX_LOSSY_BYTES,
  DATA_MAX_RELIABLE_BYTES,
  DATA_MAX_TOPIC_BYTES,
  TRANSPORT_TIMEOUT_MS,
} from '../defaults';
import { ConnectionError, MrtcError } from '../errors';
import { logger } from '../logger';

/** DCEP protocol of channels whose messages are framed. */
const PROTOCOL = 'mrtc.data.v1';
/** A channel agreed by number needs no word with the server: it is there so that the first offer has the m-line. */
const FIRST_CHANNEL = 1022;
const TEXT = 1;
const GAP = 2;
const MAX_NAMES = 100;
const MAX_NAME_BYTES = 128;

/** A message as it came. */
export interface DataMessage {
  /** What it is about. */
  topic: string;
  /** Identity of who sent it, as the server knows it. */
  identity: string;
  /** The bytes, also of text. */
  payload: Uint8Array<ArrayBuffer>;
  /** It was sent as text. */
  isText: boolean;
  /** As the sender chose. */
  isReliable: boolean;
  /** Messages of this topic before this one were given up. */
  hasGap: boolean;
}

/** How to send a message. */
export interface DataSend {
  /** 1 to 64 visible ASCII characters. */
  topic: string;
  /** Until it arrives and in order, or once and unordered. */
  isReliable: boolean;
  /** Identities; empty: everybody. */
  to: readonly string[];
}

/** The data channels of one peer connection. Those to send on are opened when they are first used. */
export class DataChannels {
  readonly #pc: RTCPeerConnection;
  readonly #first: RTCDataChannel;
  readonly #outbound = new Map<string, RTCDataChannel>();

  constructor(pc: RTCPeerConnection, onMessage: (message: DataMessage) => void) {
    this.#pc = pc;
    this.#first = pc.createDataChannel('', { negotiated: true, id: FIRST_CHANNEL });
    pc.addEventListener('datachannel', ({ channel }) => {
      if (channel.protocol !== PROTOCOL) return;
      const isReliable = channel.maxRetransmits === null && channel.maxPacketLifeTime === null;
      channel.binaryType = 'arraybuffer';
      channel.addEventListener('message', ({ data }: MessageEvent<ArrayBuffer | string>) => {
        const parsed = typeof data === 'string' ? undefined : parseData(new Uint8Array(data));
        if (parsed) onMessage({ ...parsed, topic: channel.label, isReliable });
        else logger.debug(`a message on ${channel.label} that this version does not know`);
      });
    });
  }

  /** True once messages can come. */
  get isOpen(): boolean {
    return this.#first.readyState === 'open';
  }

  /** Sends; waits for the channel to open, and while the server holds this client back. */
  async publish(payload: string | Uint8Array, send: DataSend): Promise<void> {
    const message = frameData(payload, send);
    const channel = this.#channel(send);
    if (channel.readyState === 'connecting') await until(channel, 'open');
    if (channel.bufferedAmount > DATA_MAX_BUFFERED_BYTES) {
      // What may be lost is of no use later.
      if (!send.isReliable) return;
      channel.bufferedAmountLowThreshold = DATA_MAX_BUFFERED_BYTES / 2;
      await until(channel, 'bufferedamountlow');
    }
    if (channel.readyState !== 'open') throw new ConnectionError(`the data channel ${send.topic} is closed`);
    channel.send(message);
  }

  #channel({ topic, isReliable }: DataSend): RTCDataChannel {
    const key = `${isReliable ? 'r' : 'l'}${topic}`;
    const known = this.#outbound.get(key);
    if (known && known.readyState !== 'closing' && known.readyState !== 'closed') return known;
    const channel = this.#pc.createDataChannel(topic, {
      protocol: PROTOCOL,
      ...(isReliable ? {} : { ordered: false, maxRetransmits: 0 }),
    });
    this.#outbound.set(key, channel);
    return channel;
  }
}

/** Resolves with the event; fails when the channel closes, or takes too long to open. */
function until(channel: RTCDataChannel, event: 'open' | 'bufferedamountlow'): Promise<void> {
  return new Promise((resolve, reject) => {
    const listening = new AbortController();
    const finish = (error?: Error): void => {
      listening.abort();
      clearTimeout(timer);
      if (error) reject(error);
      else resolve();
    };
    const fail = (): void => finish(new ConnectionError(`the data channel ${channel.label} is closed`));
    const slow = (): void => finish(new ConnectionError(`the data channel ${channel.label} did not open`, 'TIMEOUT'));
    const timer = event === 'open' ? setTimeout(slow, TRANSPORT_TIMEOUT_MS) : undefined;
    channel.addEventListener(event, () => finish(), { signal: listening.signal });
    for (const end of ['close', 'error']) channel.addEventListener(end, fail, { signal: listening.signal });
    if (channel.readyState === 'closed') fail();
  });
}

/** A message for the server. Throws what the server would not take. */
export function frameData(payload: string | Uint8Array, { topic, isReliable, to }: DataSend): Uint8Array<ArrayBuffer> {
  if (!/^[!-~]+$/.test(topic) || topic.length > DATA_MAX_TOPIC_BYTES) {
    throw new MrtcError('BAD_ARGUMENT', `a topic has 1 to ${DATA_MAX_TOPIC_BYTES} visible ASCII characters`);
  }
  const encoder = new TextEncoder();
  const bytes = typeof payload === 'string' ? encoder.encode(payload) : payload;
  const limit = isReliable ? DATA_MAX_RELIABLE_BYTES : DATA_MAX_LOSSY_BYTES;
  if (bytes.length > limit) {
    throw new MrtcError('TOO_LARGE', `a data message has at most ${limit} bytes, not ${bytes.length}`);
  }
  const names = to.map((identity) => encoder.encode(identity));
  if (names.length > MAX_NAMES || names.some(({ length }) => length < 1 || length > MAX_NAME_BYTES)) {
    throw new MrtcError('BAD_ARGUMENT', `a data message is for at most ${MAX_NAMES} identities of 1 to ${MAX_NAME_BYTES} bytes`);
  }
  const head = [typeof payload === 'string' ? TEXT : 0, names.length, ...names.flatMap((name) => [name.length, ...name])];
  const message = new Uint8Array(head.length + bytes.length);
  message.set(head);
  message.set(bytes, head.length);
  return message;
}

/** A message of the server; undefined if it is not one. */
export function parseData(message: Uint8Array<ArrayBuffer>): Omit<DataMessage, 'topic' | 'isReliable'> | undefined {
  const [flags, count, length] = message;
  if (flags === undefined || count !== 1 || length === undefined || message.length < 3 + length) return undefined;
  return {
    identity: new TextDecoder().decode(message.subarray(3, 3 + length)),
    payload: message.slice(3 + length),
    isText: (flags & TEXT) !== 0,
    hasGap: (flags & GAP) !== 0,
  };
}
