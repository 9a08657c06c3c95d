/** Every event of a room: when it comes, when not, and with what. */

import type { EncryptionError, MrtcError } from './errors';
import type { LocalPublication, RemotePublication } from './publication';
import type { Participant, RemoteParticipant } from './participant';
import type { RoomStats } from './stats';
import type { LocalTrack } from './tracks/local-track';
import type { RemoteTrack } from './tracks/remote-track';
import type { Reason } from './words';

/**
 * - `disconnected`: not in a room.
 * - `connecting`: a join is under way.
 * - `connected`: in the room; what was there before is known, `trackSubscribed` came for what is received of it.
 * - `reconnecting`: in the room, but the server cannot be heard; media usually goes on, requests wait.
 */
export type ConnectionState = 'disconnected' | 'connecting' | 'connected' | 'reconnecting';

/** Who speaks, and how loud (0 to 127). */
export interface Speaker {
  /** Who. */
  participant: Participant;
  /** 127 + dBov of RFC 6464. */
  level: number;
}

/** A text message. */
export interface ReceivedMessage {
  /** Its place in the room's order; rises, never repeats. */
  seq: number;
  /** Sender; undefined if it has left. */
  participant: Participant | undefined;
  /** Sender's identity. */
  identity: string;
  /** The application's topic. */
  topic: string;
  /** As sent. */
  payload: Uint8Array;
  /** The payload read as UTF-8. */
  text: string;
  /** When the server stored it. */
  sentAt: Date;
  /** True if it was addressed to certain identities only. */
  isPrivate: boolean;
}

/** A data message, see `dataReceived`. */
export interface ReceivedData {
  /** What it is about. */
  topic: string;
  /** Who sent it, if still (or already) in the room. */
  participant: Participant | undefined;
  /** Identity of the sender; the server vouches for it. */
  identity: string;
  /** The bytes. */
  payload: Uint8Array<ArrayBuffer>;
  /** The same as text, if it was sent as text. */
  text: string | undefined;
  /** As the sender chose. */
  isReliable: boolean;
  /** Reliable messages of this topic before this one were given up, since this client took them too slowly. */
  hasGap: boolean;
}

/** A recording of the room. */
export interface Recording {
  /** Which. */
  recordingId: string;
  /** True: under way. */
  isActive: boolean;
}

/** Events of `Room`. */
export type RoomEvents = {
  /** The state changed. Not repeated for the same state. */
  connectionStateChanged: [state: ConnectionState];
  /**
   * The room is over for this client: it left (`client_request`), was removed, its place was taken by a join with the
   * same identity, the room was closed, or the connection was lost for longer than the grace time. Comes once, last.
   * Not when `connect` itself fails; that is its exception.
   */
  disconnected: [reason: Reason, error: MrtcError | undefined];

  /** Somebody joined. Not for those who were there before: they are in `room.remoteParticipants` after `connect`. */
  participantJoined: [participant: RemoteParticipant];
  /** Name, metadata or `isConnected` changed. */
  participantUpdated: [participant: RemoteParticipant];
  /** Somebody left; `trackUnsubscribed` and `publicationRemoved` for all it had came before. */
  participantLeft: [participant: RemoteParticipant, reason: Reason];

  /**
   * In a large room: the number of those who only listen and are not in `room.remoteParticipants` changed. For those who
   * are in it the three events above come as always, many at once.
   */
  unlistedCountChanged: [count: number];

  /** Somebody began to publish. Media comes with `trackSubscribed`. */
  publicationAdded: [publication: RemotePublication, participant: RemoteParticipant];
  /** Somebody ceased to publish. */
  publicationRemoved: [publication: RemotePublication, participant: RemoteParticipant];
  /** An own publication stands; also after `connect` for the tracks given to it. */
  localPublished: [publication: LocalPublication];
  /** An own publication ended: by the application, or since the device or shared window was taken away. */
  localUnpublished: [publication: LocalPublication];

  /** A track is mapped to a slot: attach it. Also for tracks that were there before the join. */
  trackSubscribed: [track: RemoteTrack, publication: RemotePublication, participant: RemoteParticipant];
  /** A track is no longer received: it ended, was given up, or there is no slot for it. Detach it. */
  trackUnsubscribed: [track: RemoteTrack, publication: RemotePublication, participant: RemoteParticipant];
  /** A track cannot be delivered to this client, for example with `NO_COMMON_CODEC`. */
  trackSubscriptionFailed: [trackId: string, error: MrtcError];
  /** A track, own or other's, sends nothing from now on. */
  trackMuted: [track: RemoteTrack | LocalTrack, participant: Participant];
  /** A track, own or other's, sends again. */
  trackUnmuted: [track: RemoteTrack | LocalTrack, participant: Participant];
  /**
   * A received track cannot be decrypted, for more than a moment: nothing of it is shown or heard. Once, until it was
   * restored; `error.code` says why. Set the right key (`room.e2ee.setKey`), or tell the person.
   */
  encryptionError: [error: EncryptionError, track: RemoteTrack, participant: RemoteParticipant];
  /** A track for which `encryptionError` came is decrypted again. */
  encryptionRestored: [track: RemoteTrack, participant: RemoteParticipant];
  /** Loudest first; empty: silence. At most a few times a second. */
  activeSpeakersChanged: [speakers: Speaker[]];

  /** A text message of somebody else, in the room's order, exactly once, also over reconnects. */
  messageReceived: [message: ReceivedMessage];
  /**
   * A message of `publishData`. Only those sent while this client's media connection is up: nothing is stored, nothing is
   * repeated after a loss of the media server.
   */
  dataReceived: [data: ReceivedData];
  /** A recording started or ended. Those under way at the join are in `room.recordings`. */
  recordingChanged: [recording: Recording];

  /** Media stopped: the path or the media node is gone. The SDK builds a new transport; nothing to do. */
  mediaLost: [message: string];
  /** Media flows again after `mediaLost`. */
  mediaRestored: [];
  /** The browser holds sound back until the person touches the page: call `room.startAudio()` on a click. */
  audioPlaybackBlocked: [];
  /** Figures, each `statsIntervalMs`. */
  statsUpdated: [stats: RoomStats];
};
