/** All defaults of the SDK in one place. Each says why it is what it is. */

import type { CaptureDefaults, Codec, ResolvedRoomOptions, SimulcastLayer } from './options';

/** Longest wait for a WebSocket to open. A server that is there answers within a round trip or two. */
export const SOCKET_OPEN_TIMEOUT_MS = 10_000;

/** Longest wait for a reply, repeats after a resume included. */
export const REQUEST_TIMEOUT_MS = 30_000;

/** Requests waiting for replies; beyond it new ones fail at once, so that an outage cannot grow memory. */
export const MAX_PENDING_REQUESTS = 256;

/** A request is repeated on so many further connections; a network that flaps more often loses the session anyway. */
export const MAX_REQUEST_REPEATS = 5;

/** Waits between attempts to reconnect; the last one repeats. The first is free: most losses are short. */
export const RECONNECT_DELAYS_MS = [0, 300, 1_200, 2_700, 4_800, 7_000];

/** Attempts to reconnect that fit into the grace time at least. */
export const ATTEMPTS_PER_GRACE = 3;

/** Share of a wait that is random, so that a server's clients do not all come back in one moment. */
export const RECONNECT_JITTER = 0.3;

/** Pushes are acknowledged in lots of this size ... */
export const ACK_EVERY_PUSHES = 16;

/** ... or after this time, whichever is first. */
export const ACK_AFTER_MS = 500;

/** A connection on which nothing came for this many heartbeat intervals is given up. */
export const SILENT_INTERVALS = 2.5;

/** A connection that is asked whether it lives, because media has stopped, must answer within this time. */
export const CHECK_TIMEOUT_MS = 2_000;

/** A transport that is `disconnected` for this long is restarted; shorter gaps heal by themselves. */
export const ICE_RESTART_AFTER_MS = 2_500;

/** A first transport that has not connected by then is tried by way of TURN, if the server named any. */
export const TURN_FALLBACK_AFTER_MS = 2_000;

/** Longest wait for a transport to connect before another is tried. */
export const TRANSPORT_TIMEOUT_MS = 15_000;

/** Wishes (wanted sizes) are collected for this long, so that a layout change is one request. */
export const WISH_DEBOUNCE_MS = 150;

/** An element's size must be stable for this long before another layer is asked for. */
export const ADAPTIVE_DEBOUNCE_MS = 300;

/** News that contradict an own change of mute are believed after this time: they may be older than the change. */
export const MUTE_RECONCILE_MS = 2_000;

/** Largest payload of a text message, as the server enforces it. */
export const MAX_MESSAGE_BYTES = 64 * 1024;

/** Quarter, half, full. The bitrates fit 1280x720 at 30 frames/s and scale with the captured area. */
export const CAMERA_LAYERS: readonly SimulcastLayer[] = [
  { rid: 'q', scaleDownBy: 4, maxBitrateBps: 150_000 },
  { rid: 'h', scaleDownBy: 2, maxBitrateBps: 500_000 },
  { rid: 'f', scaleDownBy: 1, maxBitrateBps: 1_700_000 },
];

/** After a move, how often is looked whether the new transport plays what the former one still does ... */
export const MOVE_POLL_MS = 10;

/** ... and for how long; the server ends the former transport somewhat later. */
export const MOVE_WAIT_MS = 2_500;

/** A track that lost its slot while media was repaired is taken for gone after this. */
export const REPAIR_PATIENCE_MS = 5_000;

/** A former transport that the server has not ended after this is closed. */
export const FORMER_LINGER_MS = 6_000;

/** Text must stay readable: one encoding, resolution before frame rate. */
export const SCREEN_MAX_BITRATE_BPS = 2_500_000;

/** Speech and music alike sound transparent at this rate. */
export const AUDIO_MAX_BITRATE_BPS = 48_000;

/** Preferred order. VP8 first: every browser encodes it in simulcast. */
export const VIDEO_CODECS: readonly Codec[] = ['vp8', 'h264', 'vp9', 'av1'];

/** Shortest key that is taken as bytes: that of AES-128. */
export const E2EE_MIN_KEY_BYTES = 16;

/** PBKDF2 rounds, as OWASP advises for SHA-256. */
export const E2EE_PASSPHRASE_ITERATIONS = 600_000;

/** Own frames are encrypted with a new key so long after it was set; the others have set it by then. */
export const E2EE_ROTATION_DELAY_MS = 1_000;

/** Longest data message that is delivered reliably. */
export const DATA_MAX_RELIABLE_BYTES = 64_000;

/** Longest data message that may be lost: a dozen datagrams, of which none may be missing. */
export const DATA_MAX_LOSSY_BYTES = 15_000;

/** Longest topic of data messages. */
export const DATA_MAX_TOPIC_BYTES = 64;

/** Bytes of a data channel that wait in the browser before `publishData` waits too. */
export const DATA_MAX_BUFFERED_BYTES = 1024 * 1024;

/** How often the buffers of received media are adapted to what the path loses. */
export const PLAYOUT_INTERVAL_MS = 1_000;

/** They are shortened when none of so many seconds needed more: each change stretches or squeezes sound. */
export const PLAYOUT_HOLD_S = 10;

/** Capture settings. */
export const CAPTURE_DEFAULTS: CaptureDefaults = {
  camera: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } },
  microphone: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  screenShare: { video: { frameRate: { ideal: 15, max: 30 } }, audio: true },
};

/** See `RoomOptions` for the meaning of each. */
export const ROOM_DEFAULTS: ResolvedRoomOptions = {
  adaptiveStream: true,
  autoSubscribe: true,
  protocol: 'proto',
  videoCodec: 'vp8',
  receiveVideoCodecs: [...VIDEO_CODECS],
  audioSlots: 6,
  videoSlots: 9,
  maxSlots: 100,
  stopCameraOnMute: true,
  statsIntervalMs: 0,
  maxConnectAttempts: 3,
  iceServers: [],
  iceTransportPolicy: 'all',
  dataChannels: true,
  maxPlayoutDelayMs: 600,
  capture: CAPTURE_DEFAULTS,
  clientInfo: 'mrtc-web/0.1.0',
};
