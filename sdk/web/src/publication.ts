/** What a participant publishes as one thing: an id, the application's tag, one or two tracks. */

import type { Publication } from './gen/mrtc/common/v1/common_pb';
import type { TrackWish } from './options';
import type { LocalTrack } from './tracks/local-track';
import { remoteTrack } from './tracks/remote-track';
import type { RemoteTrack, TrackControl } from './tracks/remote-track';

/** An own publication. */
export class LocalPublication {
  /** Ours; kept over moves and reconnects. */
  readonly id: string;
  /** The application's tag. */
  readonly tag: string;
  /** Its tracks. */
  readonly tracks: readonly LocalTrack[];

  constructor(info: Publication, tracks: readonly LocalTrack[]) {
    this.id = info.id;
    this.tag = info.tag;
    this.tracks = tracks;
  }
}

/** What `RemotePublication.update` found. */
export interface PublicationChanges {
  /** New tracks. */
  added: RemoteTrack[];
  /** Tracks that are gone. */
  removed: RemoteTrack[];
  /** Tracks that were muted or unmuted. */
  muteChanged: RemoteTrack[];
}

/** A publication of somebody else. */
export class RemotePublication {
  /** Ours; kept over moves and reconnects. */
  readonly id: string;
  /** Who publishes. */
  readonly participantId: string;
  readonly #tracks = new Map<string, RemoteTrack>();
  readonly #control: TrackControl;
  #tag: string;

  constructor(info: Publication, control: TrackControl) {
    this.id = info.id;
    this.participantId = info.participantId;
    this.#tag = info.tag;
    this.#control = control;
  }

  /** The application's tag. */
  get tag(): string {
    return this.#tag;
  }

  /** Its tracks. The same picture in another codec is not among them. */
  get tracks(): RemoteTrack[] {
    return [...this.#tracks.values()];
  }

  /** Its sound, if it has one. */
  get audioTrack(): RemoteTrack | undefined {
    return this.tracks.find(({ kind }) => kind === 'audio');
  }

  /** Its picture, if it has one. */
  get videoTrack(): RemoteTrack | undefined {
    return this.tracks.find(({ kind }) => kind === 'video');
  }

  /** Limits size and rate, pauses, or sets the priority of its picture; see `RemoteTrack.setWish`. */
  setWish(wish: TrackWish): void {
    this.videoTrack?.setWish(wish);
  }

  /** Asks for all its tracks, or gives them up. */
  async setSubscribed(isSubscribed: boolean): Promise<void> {
    await Promise.all(this.tracks.map((track) => track.setSubscribed(isSubscribed)));
  }

  /** Takes the publisher's news. Internal. */
  update(info: Publication): PublicationChanges {
    const changes: PublicationChanges = { added: [], removed: [], muteChanged: [] };
    this.#tag = info.tag;
    const shown = info.tracks.filter(({ alternativeOf }) => alternativeOf === '');
    for (const trackInfo of shown) {
      const known = this.#tracks.get(trackInfo.id);
      if (known) {
        if (known.update(trackInfo)) changes.muteChanged.push(known);
        continue;
      }
      const track = remoteTrack(trackInfo, this.#control);
      this.#tracks.set(track.id, track);
      changes.added.push(track);
    }
    const ids = new Set(shown.map(({ id }) => id));
    for (const track of this.tracks.filter(({ id }) => !ids.has(id))) {
      this.#tracks.delete(track.id);
      changes.removed.push(track);
    }
    return changes;
  }
}
