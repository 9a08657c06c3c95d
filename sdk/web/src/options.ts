/** What an application can choose, with the trade-off of each choice. Defaults are in defaults.ts. */

import type { LocalTrack } from './tracks/local-track';
import type { Source } from './words';

/** Video codecs by their lower-case SDP names. */
export type Codec = 'vp8' | 'h264' | 'vp9' | 'av1';

/** One simulcast encoding. */
export interface SimulcastLayer {
  /** RTP stream id: `q`, `h` or `f`, lowest first. */
  rid: 'q' | 'h' | 'f';
  /** Divides the captured width and height. */
  scaleDownBy: number;
  /** Upper limit in bits per second. */
  maxBitrateBps: number;
}

/** Constraints for the devices that the SDK opens itself. */
export interface CaptureDefaults {
  /** For `setCameraEnabled`. */
  camera: MediaTrackConstraints;
  /** For `setMicrophoneEnabled`. */
  microphone: MediaTrackConstraints;
  /** For `setScreenShareEnabled`. */
  screenShare: DisplayMediaStreamOptions;
}

/** A key: text (a passphrase, which costs half a second of computing), or at least 16 bytes. */
export type E2eeKey = string | BufferSource;

/**
 * End-to-end encryption. One of `key`, `passphrase` and `keyProvider` must be given. How the key reaches the people is
 * the application's matter; it must not pass through this suite's server, or nothing is gained.
 */
export interface E2eeOptions {
  /** One key for all in the room, at least 16 bytes; change it by `room.e2ee.setKey`. */
  key?: BufferSource;
  /** One key for all in the room, made of a text that people know. */
  passphrase?: string;
  /**
   * Each participant has keys of its own: asked for the own key at the join and for others' when their first frame comes,
   * again each second while the result is undefined.
   */
  keyProvider?: (identity: string, index: number) => Promise<E2eeKey | undefined>;
  /** Length of the AES-GCM keys. Default 128. */
  keyBits?: 128 | 256;
  /** Default false: tracks that are not encrypted (a played file, WHIP) are not shown, since a server could make them up. */
  acceptPlain?: boolean;
  /** Makes the worker. Default: `mrtc-e2ee-worker.mjs` beside the SDK's own file, which bundlers find by themselves. */
  worker?: () => Worker;
}

/** Settings of a room, given to its constructor or to `Room.connect`. */
export interface RoomOptions {
  /**
   * Default true: a video track is asked for in the size in which it is shown, and paused while no element shows it.
   * Saves most of the bandwidth of a grid; costs up to half a second of lower quality after a tile grew.
   */
  adaptiveStream?: boolean;
  /** Default true: every track of the room is received. False: only those for which `setSubscribed(true)` is called. */
  autoSubscribe?: boolean;
  /** Default `proto`: binary frames. `json`: readable in the network inspector, three times larger. */
  protocol?: 'proto' | 'json';
  /** Codec of the camera. Default `vp8`. A further codec is sent only while a receiver needs it. */
  videoCodec?: Codec;
  /** Video codecs that this client receives, best first. Default: all that the browser knows. */
  receiveVideoCodecs?: Codec[];
  /** Receive m-lines for sound negotiated at the join. Default 6; the pool grows when the room needs more. */
  audioSlots?: number;
  /** Receive m-lines for pictures negotiated at the join. Default 9. More make the first offer larger. */
  videoSlots?: number;
  /** Growth of the pool ends here, for both kinds together. Default 100. */
  maxSlots?: number;
  /** Default true: a muted camera is closed (its light goes out); unmuting takes as long as opening it. */
  stopCameraOnMute?: boolean;
  /** Interval of the `statsUpdated` event in milliseconds. Default 0: never; 1000 suits an overlay. */
  statsIntervalMs?: number;
  /** Default true: `publishData` and `dataReceived` work. False saves the server and this client an association. */
  dataChannels?: boolean;
  /**
   * While packets are lost, the browser holds received media back until lost ones have come again, at most for so many
   * milliseconds. Default 600, which two round trips of 250 ms need; what is lost more often than that shows as freezes and
   * gaps. 0: the browser decides, which favours delay over everything.
   */
  maxPlayoutDelayMs?: number;
  /** How often a join is tried when the server says that it may be repeated. Default 3. */
  maxConnectAttempts?: number;
  /**
   * STUN and TURN servers known before the join. Those that the server names are added if a path is not found with these,
   * which takes two seconds longer. Default none.
   */
  iceServers?: RTCIceServer[];
  /** Default `all`. `relay`: media goes by TURN only, which hides the client's addresses from the media server. */
  iceTransportPolicy?: RTCIceTransportPolicy;
  /** Constraints for the devices that the SDK opens itself. */
  capture?: Partial<CaptureDefaults>;
  /** Name and version of the application, for the server's logs. */
  clientInfo?: string;
  /** End-to-end encryption of all that is sent and received. Default: none. Recording is not possible with it. */
  e2ee?: E2eeOptions;
}

/** `RoomOptions` with every default filled in. */
export type ResolvedRoomOptions = Required<Omit<RoomOptions, 'capture' | 'e2ee'>> & { capture: CaptureDefaults };

/** Settings of one `connect`. */
export interface ConnectOptions {
  /** Name of the room; default: the token's. */
  room?: string;
  /** Name to show; default: the token's. */
  name?: string;
  /** Opaque data of the application, at most 4 KiB; default: the token's. */
  metadata?: string;
  /** Tracks to publish with the join itself, as one publication. Saves a round trip. */
  tracks?: LocalTrack[];
  /** Tag of that publication. */
  tag?: string;
}

/** How a data message is sent. */
export interface DataOptions {
  /** What it is about, 1 to 64 visible ASCII characters. Default `data`. */
  topic?: string;
  /**
   * Default true: arrives, in the order of sending; at most 64,000 bytes. False: sent once, may overtake and be lost, but
   * never waits for another; at most 15,000 bytes. For pointers, cursors, game states.
   */
  reliable?: boolean;
  /** Identities; default: everybody else. */
  to?: string[];
}

/** Settings of one publication. */
export interface PublishOptions {
  /** The application's tag, at most 256 bytes. */
  tag?: string;
}

/** Settings of a track that the application captured itself. */
export interface LocalTrackOptions {
  /** What it shows. Default: `camera` or `microphone` by kind. */
  source?: Source;
  /** Encodings of a video track. Default: three for a camera, one (`false`) for everything else. */
  simulcast?: boolean | SimulcastLayer[];
  /**
   * Layers inside one encoding instead of simulcast, as WebRTC-SVC names them: `L3T3_KEY` with the room's `videoCodec` `vp9`
   * or `av1` sends three sizes for little more than the largest one costs, and each receiver gets what it shows. Needs an
   * encoder that has the mode; without one the track is sent without layers. Simulcast is then off, unless asked for.
   */
  scalabilityMode?: string;
  /** Upper limit of a track without simulcast, in bits per second. */
  maxBitrateBps?: number;
  /** Starts muted. Default false. */
  isMuted?: boolean;
  /** What to keep when bandwidth is short. Default `detail` for a screen, `motion` for everything else. */
  contentHint?: 'motion' | 'detail' | 'text';
}

/** What is wanted of one remote video track. */
export interface TrackWish {
  /** Largest picture of use, in pixels of height; 0 or unset: no limit. */
  maxHeight?: number;
  /** Largest frame rate of use; 0 or unset: no limit. */
  maxFps?: number;
  /** True: send nothing for now. */
  isPaused?: boolean;
  /** 1 (lowest) to 255: who keeps quality when bandwidth is short. Default 128. */
  priority?: number;
}
