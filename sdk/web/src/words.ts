/** The suite's words as the application sees them: lower-case strings instead of the wire's enum numbers. */

import { LeaveReason, ParticipantKind, TrackKind, TrackSource } from './gen/mrtc/common/v1/common_pb';

/** Sound or picture. */
export type Kind = 'audio' | 'video';

/** What a track shows or plays. */
export type Source = 'camera' | 'microphone' | 'screen_share' | 'screen_share_audio' | 'file' | 'unknown';

/** What kind of being a participant is. */
export type ParticipantType = 'standard' | 'ingress' | 'vod' | 'recorder' | 'unknown';

/** Why somebody left, or why this client was disconnected. */
export type Reason =
  | 'client_request'
  | 'connection_lost'
  | 'removed'
  | 'duplicate_identity'
  | 'room_closed'
  | 'ended'
  | 'media_failure'
  | 'server_shutdown'
  | 'unknown';

/** From the wire. */
export const kindFromWire = (kind: TrackKind): Kind => (kind === TrackKind.AUDIO ? 'audio' : 'video');

/** To the wire. */
export const kindToWire = (kind: Kind): TrackKind => (kind === 'audio' ? TrackKind.AUDIO : TrackKind.VIDEO);

const lowerName = (name: string | undefined): string =>
  name === undefined || name === 'UNSPECIFIED' ? 'unknown' : name.toLowerCase();

/** From the wire; a value newer than this SDK is `unknown`. */
export const sourceFromWire = (source: TrackSource): Source => lowerName(TrackSource[source]) as Source;

/** To the wire. */
export function sourceToWire(source: Source): TrackSource {
  switch (source) {
    case 'camera':
      return TrackSource.CAMERA;
    case 'microphone':
      return TrackSource.MICROPHONE;
    case 'screen_share':
      return TrackSource.SCREEN_SHARE;
    case 'screen_share_audio':
      return TrackSource.SCREEN_SHARE_AUDIO;
    case 'file':
      return TrackSource.FILE;
    case 'unknown':
      return TrackSource.UNSPECIFIED;
  }
}

/** From the wire; a value newer than this SDK is `unknown`. */
export const participantTypeFromWire = (kind: ParticipantKind): ParticipantType =>
  lowerName(ParticipantKind[kind]) as ParticipantType;

/** From the wire; a value newer than this SDK is `unknown`. */
export const reasonFromWire = (reason: LeaveReason): Reason => lowerName(LeaveReason[reason]) as Reason;
