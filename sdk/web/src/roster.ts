/** The others in the room: folds snapshots and pushes into participants, publications and tracks, and tells changes. */

import { REPAIR_PATIENCE_MS } from './defaults';
import type { Emitter } from './emitter';
import type { RoomEvents } from './events';
import type { Participant as ParticipantInfo, Publication } from './gen/mrtc/common/v1/common_pb';
import type { ParticipantsChanged, RoomSnapshot, SlotMapping } from './gen/mrtc/signaling/v1/client_pb';
import { RemoteParticipant } from './participant';
import { RemotePublication } from './publication';
import type { RemoteTrack, TrackControl } from './tracks/remote-track';
import type { Reason } from './words';
import { reasonFromWire } from './words';

/** What the browser receives. */
export interface SlotMedia {
  /** In a slot of the present transport. */
  of: (mid: string) => MediaStreamTrack | undefined;
  /** True if a former transport, which is there still, plays this. */
  isFormer: (media: MediaStreamTrack) => boolean;
  /** True once the present transport has played something of a slot. */
  hasBegun: (mid: string) => boolean;
  /** True while media is being repaired, and for a moment after: a track without a slot is about to get one again. */
  isInRepair: () => boolean;
}

/** A track with its surroundings. */
export interface Place {
  track: RemoteTrack;
  publication: RemotePublication;
  participant: RemoteParticipant;
}

/** All others. */
export class Roster {
  /** By participant id. */
  readonly participants = new Map<string, RemoteParticipant>();
  readonly #events: Emitter<RoomEvents>;
  readonly #control: TrackControl;
  readonly #media: SlotMedia;
  readonly #onSlots: (placeByMid: ReadonlyMap<string, Place>) => void;
  #midByTrack = new Map<string, string>();
  #selfId = '';
  #unlistedCount = 0;
  #patience: ReturnType<typeof setTimeout> | undefined;

  /** @param onSlots told what the slots carry before anybody is told of the tracks */
  constructor(
    events: Emitter<RoomEvents>,
    control: TrackControl,
    media: SlotMedia,
    onSlots: (placeByMid: ReadonlyMap<string, Place>) => void = () => undefined,
  ) {
    this.#events = events;
    this.#control = control;
    this.#media = media;
    this.#onSlots = onSlots;
  }

  /** How many others are in the room and not in `participants`, see `Room.unlistedCount`. */
  get unlistedCount(): number {
    return this.#unlistedCount;
  }

  /**
   * Makes the roster equal to a snapshot. What differs is told as if it had happened now; the first snapshot tells only
   * `trackSubscribed`, since the application has not seen any state before.
   */
  applySnapshot(snapshot: RoomSnapshot, selfId: string): void {
    const isFirst = this.#selfId === '';
    this.#selfId = selfId;
    const ids = new Set(snapshot.participants.map(({ id }) => id));
    for (const id of [...this.participants.keys()].filter((known) => !ids.has(known))) this.left(id, 'unknown');
    this.#setSlots(snapshot.slots);
    for (const info of snapshot.participants) this.joinedOrUpdated(info, isFirst);
    this.#applyPublications(snapshot.publications, isFirst);
    this.#bindAll();
    this.#setUnlisted(snapshot.unlistedCount, isFirst);
  }

  /** Somebody joined or changed. */
  joinedOrUpdated(info: ParticipantInfo, isSilent = false): void {
    if (info.id === this.#selfId) return;
    const known = this.participants.get(info.id);
    if (known) {
      if (known.updateInfo(info)) this.#events.emit('participantUpdated', known);
      return;
    }
    const participant = new RemoteParticipant(info);
    this.participants.set(info.id, participant);
    if (!isSilent) this.#events.emit('participantJoined', participant);
  }

  /** Listeners of a large room came, changed or left; of those who left some may not be known. */
  applyChanges({ participants, left, isComplete, unlistedCount }: ParticipantsChanged): void {
    for (const info of participants) this.joinedOrUpdated(info);
    if (isComplete) {
      const ids = new Set(participants.map(({ id }) => id));
      for (const id of [...this.participants.keys()].filter((known) => !ids.has(known))) this.left(id, 'unknown');
    }
    for (const { participantId, reason } of left) this.left(participantId, reasonFromWire(reason));
    this.#setUnlisted(unlistedCount);
  }

  /** Somebody left. */
  left(participantId: string, reason: Reason): void {
    const participant = this.participants.get(participantId);
    if (!participant) return;
    for (const publicationId of [...participant.publications.keys()]) this.publicationRemoved(publicationId, participantId);
    this.participants.delete(participantId);
    this.#events.emit('participantLeft', participant, reason);
  }

  /** A publication began or changed. */
  publicationUpdated(info: Publication, isSilent = false): void {
    const participant = this.participants.get(info.participantId);
    if (!participant) return;
    const known = participant.publications.get(info.id);
    const publication = known ?? new RemotePublication(info, this.#control);
    const { added, removed, muteChanged } = publication.update(info);
    participant.publications.set(publication.id, publication);
    if (!known && !isSilent) this.#events.emit('publicationAdded', publication, participant);
    for (const track of removed) this.#unbind({ track, publication, participant });
    for (const track of added) {
      track.on('playbackBlocked', () => this.#events.emit('audioPlaybackBlocked'));
    }
    if (added.length > 0) this.#tellSlots();
    for (const track of added) this.#bind({ track, publication, participant });
    for (const track of muteChanged) this.#events.emit(track.isMuted ? 'trackMuted' : 'trackUnmuted', track, participant);
  }

  /** A publication ended. */
  publicationRemoved(publicationId: string, participantId: string): void {
    const participant = this.participants.get(participantId);
    const publication = participant?.publications.get(publicationId);
    if (!participant || !publication) return;
    for (const track of publication.tracks) this.#unbind({ track, publication, participant });
    participant.publications.delete(publicationId);
    this.#events.emit('publicationRemoved', publication, participant);
  }

  /** The slots were mapped anew. */
  applySlots(slots: readonly SlotMapping[]): void {
    this.#setSlots(slots);
    this.#bindAll();
  }

  /** Another transport: the slots receive other browser objects. */
  rebind(): void {
    this.#bindAll();
  }

  /** A track with its surroundings. */
  find(trackId: string): Place | undefined {
    for (const place of this.#places()) if (place.track.id === trackId) return place;
    return undefined;
  }

  /** What a slot carries; empty if nothing. */
  trackIdOfSlot(mid: string): string {
    for (const [trackId, slot] of this.#midByTrack) if (slot === mid) return trackId;
    return '';
  }

  /** The room is over: all tracks end, without participants leaving one by one. */
  clear(): void {
    clearTimeout(this.#patience);
    for (const place of [...this.#places()]) this.#unbind(place);
    this.participants.clear();
    this.#midByTrack.clear();
    this.#selfId = '';
    this.#unlistedCount = 0;
  }

  #setUnlisted(count: number, isSilent = false): void {
    if (count === this.#unlistedCount) return;
    this.#unlistedCount = count;
    if (!isSilent) this.#events.emit('unlistedCountChanged', count);
  }

  #applyPublications(publications: readonly Publication[], isSilent: boolean): void {
    const ids = new Set(publications.map(({ id }) => id));
    for (const participant of this.participants.values()) {
      for (const id of [...participant.publications.keys()].filter((known) => !ids.has(known))) {
        this.publicationRemoved(id, participant.id);
      }
    }
    for (const info of publications) this.publicationUpdated(info, isSilent);
  }

  #setSlots(slots: readonly SlotMapping[]): void {
    this.#midByTrack = new Map(slots.filter(({ trackId }) => trackId !== '').map(({ mid, trackId }) => [trackId, mid]));
  }

  *#places(): Iterable<Place> {
    for (const participant of this.participants.values()) {
      for (const publication of participant.publications.values()) {
        for (const track of publication.tracks) yield { track, publication, participant };
      }
    }
  }

  #tellSlots(): void {
    const places = [...this.#places()].map((place) => [this.#midByTrack.get(place.track.id) ?? '', place] as const);
    this.#onSlots(new Map(places.filter(([mid]) => mid !== '')));
  }

  #bindAll(): void {
    this.#tellSlots();
    for (const place of [...this.#places()]) this.#bind(place);
  }

  #bind(place: Place): void {
    const { track, publication, participant } = place;
    const mid = this.#midByTrack.get(track.id);
    const media = mid === undefined ? undefined : this.#media.of(mid);
    if (mid === undefined || !media) return this.#loseSlot(place);
    const isNew = !track.isSubscribed;
    const isMoving = track.mediaStreamTrack !== undefined && this.#media.isFormer(track.mediaStreamTrack);
    track.setMedia(media, isMoving ? () => this.#media.hasBegun(mid) : undefined);
    if (isNew) this.#events.emit('trackSubscribed', track, publication, participant);
  }

  /** Its publisher's media may have been lost with ours and be back a little later: that is no end of the track. */
  #loseSlot(place: Place): void {
    if (!place.track.isSubscribed || !this.#media.isInRepair()) return this.#unbind(place);
    clearTimeout(this.#patience);
    this.#patience = setTimeout(() => this.#bindAll(), REPAIR_PATIENCE_MS);
  }

  #unbind({ track, publication, participant }: Place): void {
    if (!track.isSubscribed) return;
    track.setMedia(undefined);
    this.#events.emit('trackUnsubscribed', track, publication, participant);
  }
}
