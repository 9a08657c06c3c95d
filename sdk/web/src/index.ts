/** The whole public surface of the SDK. */

export { Room } from './room';
export { LocalParticipant } from './local-participant';
export { Participant, RemoteParticipant } from './participant';
export { LocalPublication, RemotePublication } from './publication';
export { LocalTrack } from './tracks/local-track';
export type { LocalTrackEvents } from './tracks/local-track';
export { RemoteAudioTrack, RemoteTrack, RemoteVideoTrack } from './tracks/remote-track';
export type { RemoteTrackEvents } from './tracks/remote-track';
export { captureCamera, captureMicrophone, captureScreen } from './tracks/capture';
export type { E2ee } from './e2ee/e2ee';
export { CAPTURE_DEFAULTS, ROOM_DEFAULTS } from './defaults';
export {
  AuthError,
  ConnectionError,
  DeviceError,
  EncryptionError,
  MrtcError,
  NegotiationError,
  ServerError,
  StateError,
} from './errors';
export type { ClientErrorCode, EncryptionErrorCode, MrtcErrorCode, ServerErrorCode } from './errors';
export type { ConnectionState, ReceivedData, ReceivedMessage, Recording, RoomEvents, Speaker } from './events';
export type {
  CaptureDefaults,
  Codec,
  ConnectOptions,
  DataOptions,
  E2eeKey,
  E2eeOptions,
  LocalTrackOptions,
  PublishOptions,
  RoomOptions,
  SimulcastLayer,
  TrackWish,
} from './options';
export type { RoomStats, TrackStats } from './stats';
export { setLogLevel, setLogSink } from './logger';
export type { LogLevel, LogSink } from './logger';
export type { Kind, ParticipantType, Reason, Source } from './words';
