/**
 * The one peer connection of a client: publish m-lines and slots, negotiated before they are needed, so that
 * publishing and subscribing later cost no renegotiation.
 */

import { VIDEO_CODECS } from '../defaults';
import type { E2ee } from '../e2ee/e2ee';
import { Emitter } from '../emitter';
import { NegotiationError } from '../errors';
import { logger } from '../logger';
import type { Codec } from '../options';
import type { Kind, Source } from '../words';
import { codecName, receivePreferences, sendPreferences } from './codecs';
import { DataChannels } from './data-channels';
import type { DataMessage } from './data-channels';
import { initialEncodings } from './encodings';

/** What a transport tells. */
export type TransportEvents = {
  /** `RTCPeerConnection.connectionState` changed. */
  stateChanged: [state: RTCPeerConnectionState];
};

/** Settings of a transport. */
export interface TransportOptions {
  /** Codec of the camera and screen m-lines. */
  videoCodec: Codec;
  /** Codecs of the slots, best first. */
  receiveVideoCodecs: readonly Codec[];
  /** Slots for sound. */
  audioSlots: number;
  /** Slots for pictures. */
  videoSlots: number;
  /** STUN and TURN. */
  iceServers: RTCIceServer[];
  /** `relay`: only by TURN. */
  iceTransportPolicy: RTCIceTransportPolicy;
  /** Takes what comes on data channels; undefined: none are negotiated. */
  onData: ((message: DataMessage) => void) | undefined;
  /** End-to-end encryption; undefined: none. */
  e2ee: Pick<E2ee, 'connectionOptions' | 'attach' | 'learnCodecs'> | undefined;
}

/** An m-line that sends. */
export interface PublishLine {
  /** What it is meant for; `spare`: anything, in its `codec`. */
  readonly role: Source | 'spare';
  /** Sound or picture. */
  readonly kind: Kind;
  /** True if it has three encodings with rids. */
  readonly isSimulcast: boolean;
  /** The codec that is sent on it. */
  readonly codec: string;
  /** The browser's object. */
  readonly transceiver: RTCRtpTransceiver;
  /** True while a track is on it. */
  isBusy: boolean;
}

/** What a track needs of an m-line. */
export interface LineNeed {
  /** Sound or picture. */
  kind: Kind;
  /** What the track shows. */
  source: Source;
  /** True if it is sent in several encodings. */
  isSimulcast: boolean;
  /** Set: the m-line must send this codec. */
  codec?: string;
}

/** One peer connection. Offers always; the server answers. */
export class Transport extends Emitter<TransportEvents> {
  /** Data channels, if they are negotiated. */
  readonly data: DataChannels | undefined;
  readonly #pc: RTCPeerConnection;
  readonly #options: TransportOptions;
  readonly #lines: PublishLine[] = [];
  readonly #slots: RTCRtpTransceiver[] = [];
  #playoutDelayMs = 0;

  constructor(options: TransportOptions) {
    super();
    this.#options = options;
    this.#pc = new RTCPeerConnection(configuration(options));
    this.#pc.onconnectionstatechange = () => {
      logger.info(`transport ${this.#pc.connectionState}`);
      this.emit('stateChanged', this.#pc.connectionState);
    };
    this.#addStandardLines();
    this.addSlots(options.audioSlots, options.videoSlots);
    this.data = options.onData && new DataChannels(this.#pc, options.onData);
  }

  /** As the browser says. */
  get state(): RTCPeerConnectionState {
    return this.#pc.connectionState;
  }

  /** Slots of both kinds. */
  get slotCount(): number {
    return this.#slots.length;
  }

  /** A new offer, already set as the local description. `mid`s are known after it. */
  async createOffer(options: RTCOfferOptions = {}): Promise<string> {
    try {
      await this.#pc.setLocalDescription(await this.#pc.createOffer(options));
    } catch (error) {
      throw new NegotiationError(`the browser could not make an offer: ${String(error)}`, error);
    }
    // The server is ICE-lite and learns our addresses from our checks, so the offer need not wait for candidates.
    return this.#pc.localDescription?.sdp ?? '';
  }

  /** Takes the server's answer. */
  async acceptAnswer(sdp: string): Promise<void> {
    if (this.#pc.signalingState === 'closed') return;
    try {
      await this.#pc.setRemoteDescription({ type: 'answer', sdp });
    } catch (error) {
      throw new NegotiationError(`the browser refused the server's answer: ${String(error)}`, error);
    }
    this.#options.e2ee?.learnCodecs(this.#pc.getTransceivers());
  }

  /** Gives up an offer that was not answered. */
  async rollback(): Promise<void> {
    if (this.#pc.signalingState !== 'have-local-offer') return;
    await this.#pc.setLocalDescription({ type: 'rollback' }).catch((error: unknown) => logger.debug('rollback', error));
  }

  /** For the next gathering, which an ICE restart begins. */
  setIceServers(iceServers: RTCIceServer[]): void {
    if (this.#pc.signalingState === 'closed') return;
    this.#pc.setConfiguration(configuration({ ...this.#options, iceServers }));
  }

  /** Adds receive m-lines; they are of use after the next negotiation. */
  addSlots(audio: number, video: number): void {
    for (let i = 0; i < audio; i++) this.#addSlot('audio');
    for (let i = 0; i < video; i++) this.#addSlot('video');
  }

  /** What the slot with this mid receives. */
  trackOfSlot(mid: string): MediaStreamTrack | undefined {
    return this.#slots.find((transceiver) => transceiver.mid === mid)?.receiver.track;
  }

  /** True once something of the slot was played. */
  isPlaying(mid: string): boolean {
    const receiver = this.#slots.find((transceiver) => transceiver.mid === mid)?.receiver;
    return receiver !== undefined && receiver.getSynchronizationSources().length > 0;
  }

  /** True if one of the slots receives it. */
  receives(media: MediaStreamTrack): boolean {
    return this.#slots.some(({ receiver }) => receiver.track === media);
  }

  /** The receivers of all slots, by mid. */
  get slotReceivers(): [mid: string, receiver: RTCRtpReceiver][] {
    return this.#slots.map(({ mid, receiver }) => [mid ?? '', receiver]);
  }

  /**
   * Takes a free m-line that fits, or adds one. `needsNegotiation`: it is of use only after the next negotiation.
   */
  acquireLine(need: LineNeed): { line: PublishLine; needsNegotiation: boolean } {
    const line = this.#lines.find((candidate) => !candidate.isBusy && fits(candidate, need)) ?? this.#addLineFor(need);
    line.isBusy = true;
    return { line, needsNegotiation: line.transceiver.mid === null || line.transceiver.currentDirection === null };
  }

  /** Gives an m-line back. */
  async releaseLine(line: PublishLine): Promise<void> {
    line.isBusy = false;
    await line.transceiver.sender.replaceTrack(null).catch((error: unknown) => logger.debug('release', error));
  }

  /** Lets received media wait at least so many milliseconds before it is played; 0: as the browser likes. */
  setPlayoutDelay(ms: number): void {
    if (ms === this.#playoutDelayMs) return;
    this.#playoutDelayMs = ms;
    for (const { receiver } of this.#slots) receiver.jitterBufferTarget = ms || null;
    logger.info(`received media waits ${ms} ms`);
  }

  /** Figures of everything. */
  getStats(): Promise<RTCStatsReport> {
    return this.#pc.getStats();
  }

  /** Ends it. */
  close(): void {
    this.#pc.onconnectionstatechange = null;
    this.removeAllListeners();
    this.#pc.close();
  }

  /** Microphone, camera, screen and its sound, and a spare per other common codec for receivers that need one. */
  #addStandardLines(): void {
    const other: Codec = this.#options.videoCodec === 'h264' ? 'vp8' : 'h264';
    this.#addLine('microphone', 'audio', false, ['opus']);
    this.#addLine('camera', 'video', true, this.#codecs());
    this.#addLine('screen_share', 'video', false, this.#codecs());
    this.#addLine('screen_share_audio', 'audio', false, ['opus']);
    this.#addLine('spare', 'video', true, [other]);
    this.#addLine('spare', 'video', false, [other]);
  }

  /** The chosen codec, which is sent, and all others, so that the server knows which alternatives it may ask for. */
  #codecs(): Codec[] {
    const { videoCodec } = this.#options;
    return [videoCodec, ...VIDEO_CODECS.filter((codec) => codec !== videoCodec)];
  }

  #addLineFor({ source, kind, isSimulcast, codec }: LineNeed): PublishLine {
    const all = kind === 'audio' ? ['opus'] : this.#codecs();
    return codec === undefined
      ? this.#addLine(source, kind, isSimulcast, all)
      : this.#addLine('spare', kind, isSimulcast, [codec]);
  }

  #addLine(role: PublishLine['role'], kind: Kind, isSimulcast: boolean, codecs: readonly string[]): PublishLine {
    const transceiver = this.#pc.addTransceiver(kind, {
      direction: 'sendonly',
      ...(isSimulcast ? { sendEncodings: initialEncodings() } : {}),
    });
    this.#options.e2ee?.attach(transceiver.sender, kind);
    const preferences = sendPreferences(kind, codecs, this.#options.e2ee !== undefined);
    // A browser without the codec (Firefox and H.264) offers what it has; the server then sees what comes.
    if (preferences.length > 0) transceiver.setCodecPreferences(preferences);
    const actual = preferences[0] ? codecName(preferences[0]) : '';
    const line: PublishLine = { role, kind, isSimulcast, codec: actual, transceiver, isBusy: false };
    this.#lines.push(line);
    return line;
  }

  #addSlot(kind: Kind): void {
    const transceiver = this.#pc.addTransceiver(kind, { direction: 'recvonly' });
    this.#options.e2ee?.attach(transceiver.receiver, kind);
    const isEncrypted = this.#options.e2ee !== undefined;
    const preferences = receivePreferences(kind, this.#options.receiveVideoCodecs, isEncrypted);
    if (preferences.length > 0) transceiver.setCodecPreferences(preferences);
    if (this.#playoutDelayMs > 0) transceiver.receiver.jitterBufferTarget = this.#playoutDelayMs;
    this.#slots.push(transceiver);
  }
}

function configuration({ iceServers, iceTransportPolicy, e2ee }: TransportOptions): RTCConfiguration {
  return { bundlePolicy: 'max-bundle', rtcpMuxPolicy: 'require', iceServers, iceTransportPolicy, ...e2ee?.connectionOptions };
}

function fits(line: PublishLine, need: LineNeed): boolean {
  const isRightUse = need.codec === undefined ? line.role === need.source : line.role === 'spare';
  return (
    isRightUse &&
    line.kind === need.kind &&
    line.isSimulcast === need.isSimulcast &&
    (need.codec === undefined || line.codec === need.codec)
  );
}
