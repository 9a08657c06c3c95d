/** Somebody in the room, as others see them. */

import type { Participant as ParticipantInfo } from './gen/mrtc/common/v1/common_pb';
import type { RemotePublication } from './publication';
import type { RemoteTrack } from './tracks/remote-track';
import type { ParticipantType, Source } from './words';
import { participantTypeFromWire } from './words';

/** What all participants have. */
export abstract class Participant {
  #info: ParticipantInfo;
  /** 0 (silence) to 127 (loudest), as of the last `activeSpeakersChanged`. */
  audioLevel = 0;

  constructor(info: ParticipantInfo) {
    this.#info = info;
  }

  /** Ours, unique in the suite, never reused. */
  get id(): string {
    return this.#info.id;
  }

  /** The application's, unique in the room. */
  get identity(): string {
    return this.#info.identity;
  }

  /** For people; the identity if none was given. */
  get name(): string {
    return this.#info.name || this.#info.identity;
  }

  /** The application's opaque data. */
  get metadata(): string {
    return this.#info.metadata;
  }

  /** What it is: a person, a WHIP or WHEP client, a played file. */
  get type(): ParticipantType {
    return participantTypeFromWire(this.#info.kind);
  }

  /** When it joined. */
  get joinedAt(): Date {
    return new Date(Number(this.#info.joinedAtMs));
  }

  /** False while its connection is lost and the grace time runs; its media may go on. */
  get isConnected(): boolean {
    return this.#info.isConnected;
  }

  /** True while it is among the active speakers. */
  get isSpeaking(): boolean {
    return this.audioLevel > 0;
  }

  /** Takes the server's news; true if something changed. Internal. */
  updateInfo(info: ParticipantInfo): boolean {
    const before = this.#info;
    this.#info = info;
    return (
      before.name !== info.name || before.metadata !== info.metadata || before.isConnected !== info.isConnected
    );
  }
}

/** Somebody else. */
export class RemoteParticipant extends Participant {
  /** What it publishes, by id. */
  readonly publications = new Map<string, RemotePublication>();

  /** All tracks of all publications. */
  get tracks(): RemoteTrack[] {
    return [...this.publications.values()].flatMap(({ tracks }) => tracks);
  }

  /** The first track of a source. */
  track(source: Source): RemoteTrack | undefined {
    return this.tracks.find((track) => track.source === source);
  }
}
