/** An own audio or video source, before, during and after its publication. */

import { Emitter } from '../emitter';
import { logger } from '../logger';
import type { LocalTrackOptions, SimulcastLayer } from '../options';
import { applyPlan, layersFor, limitEncodings, planEncodings, withSpatialLayers } from '../transport/encodings';
import type { EncodingPlan } from '../transport/encodings';
import type { PublishLine } from '../transport/transport';
import type { Kind, Source } from '../words';

/** What a local track tells. */
export type LocalTrackEvents = {
  /** It was muted or unmuted, by the application, or by an admin of the room. */
  muted: [isMuted: boolean];
  /** The device or the shared window was taken away; the SDK unpublishes the track. Not after `stop()`. */
  ended: [];
  /** `mediaStreamTrack` is another one now (device switched, or opened again after a mute): attach it anew. */
  mediaChanged: [track: MediaStreamTrack];
};

/** What belongs to a track that the SDK captured itself. */
export interface CaptureControl {
  /** Opens the device again. */
  reopen?: () => Promise<MediaStreamTrack>;
  /** Closes the device while muted. */
  stopOnMute?: boolean;
}

/** The same picture on a further m-line, in another codec. */
export interface Alternative {
  /** Track id given by the server. */
  id: string;
  /** Lower-case codec name. */
  codec: string;
  /** Its m-line. */
  line: PublishLine;
  /** Encodings that somebody receives; undefined: not told yet. */
  wantedRids: ReadonlySet<string> | undefined;
}

/** An own audio or video source. */
export class LocalTrack extends Emitter<LocalTrackEvents> {
  /** Sound or picture. */
  readonly kind: Kind;
  /** What it shows. */
  readonly source: Source;
  /** Id given by the server; empty while not published. */
  id = '';
  /** The m-line that carries it; undefined while not published. Internal. */
  line: PublishLine | undefined;
  /** The same picture in other codecs. Internal. */
  readonly alternatives: Alternative[] = [];
  /** Encodings that somebody receives; undefined: not told yet, all are sent. Internal. */
  wantedRids: ReadonlySet<string> | undefined;
  /** Layers inside the one encoding that somebody receives, from the lowest on; 0: all. Internal. */
  wantedSpatialLayers = 0;
  /** What the server lets it send at most, in bit/s; 0: no cap of its own. Internal. */
  capBps = 0;
  #plan: EncodingPlan;
  readonly #control: CaptureControl;
  readonly #hint: string;
  #media: MediaStreamTrack;
  #isMuted: boolean;
  #isStopped = false;

  /**
   * @param media what the browser captures; it belongs to this object from now on, `stop()` ends it
   */
  constructor(media: MediaStreamTrack, options: LocalTrackOptions = {}, control: CaptureControl = {}) {
    super();
    this.kind = media.kind === 'audio' ? 'audio' : 'video';
    this.source = options.source ?? (this.kind === 'audio' ? 'microphone' : 'camera');
    this.#plan = planEncodings(this.kind, this.source, options.simulcast, options.maxBitrateBps, options.scalabilityMode);
    this.#control = control;
    this.#hint = options.contentHint ?? (this.source === 'screen_share' ? 'detail' : '');
    this.#isMuted = options.isMuted ?? false;
    this.#media = media;
    this.#adopt(media);
  }

  /** What is captured now. A new object after `replaceMedia` and, for a camera, after unmuting. */
  get mediaStreamTrack(): MediaStreamTrack {
    return this.#media;
  }

  /** True if no media is sent for now. */
  get isMuted(): boolean {
    return this.#isMuted;
  }

  /** True while it is in a publication. */
  get isPublished(): boolean {
    return this.id !== '';
  }

  /** True if it is sent in several encodings. */
  get isSimulcast(): boolean {
    return this.#plan.layers.length > 0;
  }

  /** What is announced of its encodings: pixel sizes are those of the present capture. */
  get announcedLayers(): { rid: string; width: number; height: number; maxBitrateBps: number }[] {
    const { width = 0, height = 0 } = this.#media.getSettings();
    return layersFor(this.#plan, width * height).map(({ rid, scaleDownBy, maxBitrateBps }: SimulcastLayer) => ({
      rid,
      width: Math.floor(width / scaleDownBy),
      height: Math.floor(height / scaleDownBy),
      maxBitrateBps,
    }));
  }

  /** Sends another source (a camera switched, a processed picture) without anybody having to subscribe anew. */
  async replaceMedia(media: MediaStreamTrack): Promise<void> {
    const old = this.#media;
    this.#media = media;
    this.#adopt(media);
    old.onended = null;
    if (old !== media) old.stop();
    await this.sendOn(this.line);
    for (const alternative of this.alternatives) await this.sendOn(alternative.line, alternative.wantedRids);
    this.emit('mediaChanged', media);
  }

  /** Ends the capture. A stopped track cannot be used again. */
  stop(): void {
    this.#isStopped = true;
    this.#media.onended = null;
    this.#media.stop();
  }

  /**
   * Stops or starts sending here; that others are told is the publication's duty. Internal.
   *
   * @throws DeviceError if the camera cannot be opened again
   */
  async setMuted(isMuted: boolean): Promise<void> {
    if (isMuted === this.#isMuted) return;
    if (!isMuted && this.#control.reopen && this.#media.readyState === 'ended') {
      const media = await this.#control.reopen();
      this.#isMuted = false;
      await this.replaceMedia(media);
    }
    this.#isMuted = isMuted;
    this.#media.enabled = !isMuted;
    if (isMuted && this.#control.stopOnMute) {
      this.#media.onended = null;
      this.#media.stop();
    }
    await this.refreshEncodings();
    this.emit('muted', isMuted);
  }

  /** Puts the present media and the plan onto an m-line. Internal. */
  async sendOn(line: PublishLine | undefined, wantedRids = this.wantedRids): Promise<void> {
    if (!line) return;
    const { sender } = line.transceiver;
    await sender.replaceTrack(this.#media);
    await this.#applyEncodings(sender, wantedRids);
  }

  /** Writes what is wanted into the senders, after a change of mute or of the wanted layers. Internal. */
  async refreshEncodings(): Promise<void> {
    if (this.line) await this.#applyEncodings(this.line.transceiver.sender, this.wantedRids);
    for (const { line, wantedRids } of this.alternatives) {
      await this.#applyEncodings(line.transceiver.sender, wantedRids);
    }
  }

  async #applyEncodings(sender: RTCRtpSender, wantedRids: ReadonlySet<string> | undefined): Promise<void> {
    const parameters = sender.getParameters();
    const { width = 0, height = 0 } = this.#media.getSettings();
    // A muted microphone goes on with silence, which costs next to nothing and keeps levels and timing.
    const isSilent = this.#isMuted && this.kind === 'video';
    const isMain = sender === this.line?.transceiver.sender;
    const plan = isMain ? withSpatialLayers(this.#plan, this.wantedSpatialLayers, width, height) : this.#plan;
    applyPlan(parameters.encodings, plan, wantedRids, isSilent, width * height);
    // Sound keeps to its cap by what the transport tells (REMB): a maximum of Opus is a rate to be reached.
    if (this.kind === 'video') limitEncodings(parameters.encodings, this.capBps);
    if (this.#hint === 'detail' || this.#hint === 'text') parameters.degradationPreference = 'maintain-resolution';
    try {
      await sender.setParameters(parameters);
    } catch (error) {
      logger.warn(`encodings of a ${this.source} track could not be set`, error);
      if (this.#plan.scalabilityMode === undefined) return;
      // The encoder of this codec lacks the mode: without it the rest holds.
      this.#plan = { layers: this.#plan.layers, maxBitrateBps: this.#plan.maxBitrateBps };
      await this.#applyEncodings(sender, wantedRids);
    }
  }

  #adopt(media: MediaStreamTrack): void {
    if (this.#hint) media.contentHint = this.#hint;
    media.enabled = !this.#isMuted;
    media.onended = () => {
      if (!this.#isStopped) this.emit('ended');
    };
  }
}
