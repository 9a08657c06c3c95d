/** A track of somebody else: stays the same object while the slot that carries it may change. */

import { MOVE_POLL_MS, MOVE_WAIT_MS } from '../defaults';
import { Emitter } from '../emitter';
import type { Track } from '../gen/mrtc/common/v1/common_pb';
import { logger } from '../logger';
import type { TrackWish } from '../options';
import type { Kind, Source } from '../words';
import { kindFromWire, sourceFromWire } from '../words';

/** What a remote track tells. */
export type RemoteTrackEvents = {
  /** Its publisher muted or unmuted it. */
  muted: [isMuted: boolean];
  /**
   * `mediaStreamTrack` is another one now: it was mapped to another slot, or the transport was replaced. Attached
   * elements follow by themselves; only own users of `mediaStreamTrack` need this.
   */
  mediaChanged: [track: MediaStreamTrack | undefined];
  /** The browser does not play sound before the person touched the page; call `room.startAudio()` on a click. */
  playbackBlocked: [];
  /** Elements were attached or detached. */
  elementsChanged: [];
};

/** What a remote track can ask of its room. Internal. */
export interface TrackControl {
  /** Sends a wish, collected with others. */
  wish: (trackId: string, wish: TrackWish) => void;
  /** Asks for the track or gives it up. */
  setSubscribed: (trackId: string, isSubscribed: boolean) => Promise<void>;
}

/** An audio or video track of another participant. */
export class RemoteTrack extends Emitter<RemoteTrackEvents> {
  /** Ours, unique in the suite. */
  readonly id: string;
  /** Sound or picture. */
  readonly kind: Kind;
  /** Elements that play it. */
  readonly elements = new Set<HTMLMediaElement>();
  protected readonly control: TrackControl;
  #info: Track;
  #media: MediaStreamTrack | undefined;
  #ownWish: TrackWish = {};
  #viewWish: TrackWish = {};
  #waiting: ReturnType<typeof setInterval> | undefined;

  constructor(info: Track, control: TrackControl) {
    super();
    this.id = info.id;
    this.kind = kindFromWire(info.kind);
    this.control = control;
    this.#info = info;
  }

  /** What it shows. */
  get source(): Source {
    return sourceFromWire(this.#info.source);
  }

  /** True if its publisher sends nothing for now. */
  get isMuted(): boolean {
    return this.#info.isMuted;
  }

  /** True if its publisher says that it is end-to-end encrypted. */
  get isEncrypted(): boolean {
    return this.#info.isEncrypted;
  }

  /** Lower-case codec name as the publisher sends it; empty until it is known. */
  get codec(): string {
    return this.#info.codec;
  }

  /** Sizes of its encodings, lowest first; empty if it is not simulcast. */
  get layers(): readonly { rid: string; width: number; height: number }[] {
    return this.#info.layers.map(({ rid, width, height }) => ({ rid, width, height }));
  }

  /** True while a slot carries it. */
  get isSubscribed(): boolean {
    return this.#media !== undefined;
  }

  /** What the browser receives; undefined while no slot carries it. */
  get mediaStreamTrack(): MediaStreamTrack | undefined {
    return this.#media;
  }

  /** What is wanted of it: the application's wish and, with adaptive streams, the size in which it is shown. */
  get wish(): TrackWish {
    return mergeWishes(this.#ownWish, this.#viewWish);
  }

  /** Limits size and rate, pauses, or sets the priority. Replaces the wish before; takes effect within a moment. */
  setWish(wish: TrackWish): void {
    this.#ownWish = wish;
    this.control.wish(this.id, this.wish);
  }

  /** Asks for the track, or gives it up (in both modes). It is received when `trackSubscribed` comes. */
  async setSubscribed(isSubscribed: boolean): Promise<void> {
    await this.control.setSubscribed(this.id, isSubscribed);
  }

  /** Plays it in an element, made if none is given. Undo with `detach`. */
  attach(element: HTMLMediaElement = document.createElement(this.kind)): HTMLMediaElement {
    element.autoplay = true;
    if (element instanceof HTMLVideoElement) {
      element.playsInline = true;
      // A picture has no sound; muted, it may play without a click.
      element.muted = true;
    }
    this.elements.add(element);
    this.#show(element);
    this.emit('elementsChanged');
    return element;
  }

  /** Ends playing in one element or all; returns those that were detached. */
  detach(element?: HTMLMediaElement): HTMLMediaElement[] {
    const detached = [...this.elements].filter((one) => element === undefined || one === element);
    for (const one of detached) {
      this.elements.delete(one);
      one.srcObject = null;
    }
    if (detached.length > 0) this.emit('elementsChanged');
    return detached;
  }

  /** Plays attached elements that the browser had held back. Internal; see `room.startAudio`. */
  async play(): Promise<void> {
    await Promise.all([...this.elements].map((element) => element.play()));
  }

  /** The wish of the elements that show it. Internal. */
  setViewWish(wish: TrackWish): void {
    const before = JSON.stringify(this.wish);
    this.#viewWish = wish;
    if (JSON.stringify(this.wish) !== before) this.control.wish(this.id, this.wish);
  }

  /** Takes the publisher's news; true if the mute state changed. Internal. */
  update(info: Track): boolean {
    const changed = info.isMuted !== this.#info.isMuted;
    this.#info = info;
    if (changed) this.emit('muted', info.isMuted);
    return changed;
  }

  /**
   * Takes what the slot receives. Internal.
   *
   * @param hasBegun given while what is played now goes on (a move to another transport): the change waits until this is
   *   true, but not for ever
   */
  setMedia(media: MediaStreamTrack | undefined, hasBegun?: () => boolean): void {
    clearInterval(this.#waiting);
    if (media === this.#media) return;
    if (hasBegun && !hasBegun()) {
      const deadline = performance.now() + MOVE_WAIT_MS;
      this.#waiting = setInterval(() => {
        if (hasBegun() || performance.now() > deadline) this.setMedia(media);
      }, MOVE_POLL_MS);
      return;
    }
    this.#media = media;
    for (const element of this.elements) this.#show(element);
    this.emit('mediaChanged', media);
  }

  #show(element: HTMLMediaElement): void {
    const media = this.#media;
    const stream = element.srcObject instanceof MediaStream ? element.srcObject : undefined;
    const shown = stream?.getTracks()[0];
    if (shown === media) return;
    // Firefox's elements stand still when the track in their stream is exchanged, in either order.
    const isGecko = 'mozHasAudio' in element;
    if (stream && shown && media && !isGecko) {
      // The element plays on; with another stream it would load anew, which is seen and heard.
      stream.addTrack(media);
      stream.removeTrack(shown);
      return;
    }
    element.srcObject = media ? new MediaStream([media]) : null;
    if (!media) return;
    element.play().catch((error: unknown) => {
      if (error instanceof DOMException && error.name === 'NotAllowedError') this.emit('playbackBlocked');
      else logger.debug('an element did not play', error);
    });
  }
}

/** The sound of another participant. */
export class RemoteAudioTrack extends RemoteTrack {
  override readonly kind = 'audio';

  /** Loudness of all attached elements, 0 to 1. */
  setVolume(volume: number): void {
    for (const element of this.elements) element.volume = Math.min(1, Math.max(0, volume));
  }
}

/** The picture of another participant. */
export class RemoteVideoTrack extends RemoteTrack {
  override readonly kind = 'video';
}

/** The class that fits the track's kind. */
export function remoteTrack(info: Track, control: TrackControl): RemoteTrack {
  return kindFromWire(info.kind) === 'audio'
    ? new RemoteAudioTrack(info, control)
    : new RemoteVideoTrack(info, control);
}

/** Both wishes hold: the smaller limit, paused if either says so. 0 and unset mean no limit. */
export function mergeWishes(one: TrackWish, other: TrackWish): TrackWish {
  const least = (a = 0, b = 0): number => (a && b ? Math.min(a, b) : a || b);
  const priority = one.priority ?? other.priority;
  return {
    maxHeight: least(one.maxHeight, other.maxHeight),
    maxFps: least(one.maxFps, other.maxFps),
    isPaused: (one.isPaused ?? false) || (other.isPaused ?? false),
    ...(priority === undefined ? {} : { priority }),
  };
}
