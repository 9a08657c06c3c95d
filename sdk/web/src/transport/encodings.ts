/** What a publish m-line sends: simulcast encodings, their limits, and which of them are switched on. Pure. */

import { AUDIO_MAX_BITRATE_BPS, CAMERA_LAYERS, SCREEN_MAX_BITRATE_BPS } from '../defaults';
import type { SimulcastLayer } from '../options';
import type { Kind, Source } from '../words';

/** The area for which the default bitrates are meant. */
const REFERENCE_PIXELS = 1280 * 720;

/**
 * Captures below these areas are sent in at most one and two encodings: libwebrtc allows no more for VP8
 * (`kSimulcastFormats` in video/config/simulcast.cc), and what it leaves out of three is the largest.
 */
const TWO_LAYER_PIXELS = 480 * 270;
const THREE_LAYER_PIXELS = 960 * 540;

/** What decides about the encodings of a track. */
export interface EncodingPlan {
  /** Encodings, lowest first; empty: one encoding without a rid. */
  layers: readonly SimulcastLayer[];
  /** Upper limit of the one encoding. */
  maxBitrateBps: number;
  /** Layers inside the one encoding; unset: the browser's choice. */
  scalabilityMode?: string;
  /** By what the one encoding is made smaller than the capture; unset: 1. */
  scaleDownBy?: number;
}

/** An encoding with what TypeScript's DOM types lack (WebRTC-SVC). */
interface ScalableEncoding extends RTCRtpEncodingParameters {
  scalabilityMode?: string;
}

/** The plan for a track: the last three as in LocalTrackOptions. */
export function planEncodings(
  kind: Kind,
  source: Source,
  simulcast: boolean | readonly SimulcastLayer[] | undefined,
  maxBitrateBps: number | undefined,
  scalabilityMode?: string,
): EncodingPlan {
  if (kind === 'audio') return { layers: [], maxBitrateBps: maxBitrateBps ?? AUDIO_MAX_BITRATE_BPS };
  const wanted = simulcast ?? (source === 'camera' && scalabilityMode === undefined);
  const layers = wanted === true ? CAMERA_LAYERS : wanted === false ? [] : wanted;
  const plan = { layers, maxBitrateBps: maxBitrateBps ?? SCREEN_MAX_BITRATE_BPS };
  return scalabilityMode === undefined || layers.length > 0 ? plan : { ...plan, scalabilityMode };
}

/**
 * The layers that a capture of this area is sent in, lowest first: a small one leaves out the lowest sizes and has the
 * others under the lowest rids, which are those that the browser sends. An unknown area has all.
 */
export function layersFor(plan: EncodingPlan, pixels: number): SimulcastLayer[] {
  const allowed = pixels <= 0 || pixels >= THREE_LAYER_PIXELS ? plan.layers.length : pixels >= TWO_LAYER_PIXELS ? 2 : 1;
  const sizes = plan.layers.slice(-allowed);
  return sizes.map((size, index) => ({ ...size, rid: plan.layers[index]?.rid ?? size.rid }));
}

/** What the sender of a simulcast m-line is created with; which are really sent is decided by `applyPlan`. */
export function initialEncodings(): RTCRtpEncodingParameters[] {
  return CAMERA_LAYERS.map(({ rid, scaleDownBy, maxBitrateBps }) => ({
    rid,
    scaleResolutionDownBy: scaleDownBy,
    maxBitrate: maxBitrateBps,
    active: true,
  }));
}

/**
 * Writes a plan into a sender's encodings. An encoding is active if the plan has it, somebody wants it (`wantedRids`
 * unset: all are wanted; for a track without simulcast any entry counts) and the track is not muted. On a simulcast
 * m-line a plan of one encoding uses the highest rid.
 */
export function applyPlan(
  encodings: ScalableEncoding[],
  plan: EncodingPlan,
  wantedRids: ReadonlySet<string> | undefined,
  isMuted: boolean,
  pixels: number,
): void {
  const highest = encodings.at(-1);
  const layers = layersFor(plan, pixels);
  for (const encoding of encodings) {
    const layer = layers.find(({ rid }) => rid === encoding.rid);
    const isOnly = plan.layers.length === 0 && encoding === highest;
    const isWanted =
      wantedRids === undefined || (isOnly ? wantedRids.size > 0 : wantedRids.has(encoding.rid ?? ''));
    encoding.active = !isMuted && isWanted && (layer !== undefined || isOnly);
    if (layer) {
      encoding.scaleResolutionDownBy = layer.scaleDownBy;
      encoding.maxBitrate = scaledBitrate(layer.maxBitrateBps, pixels);
    } else if (isOnly) {
      const { scaleDownBy = 1 } = plan;
      if (scaleDownBy !== 1 || encoding.scaleResolutionDownBy !== undefined) {
        encoding.scaleResolutionDownBy = scaleDownBy;
      }
      encoding.maxBitrate = plan.maxBitrateBps;
      if (plan.scalabilityMode !== undefined) encoding.scalabilityMode = plan.scalabilityMode;
    }
  }
}

/**
 * Keeps what a track's encodings may send together to a cap, the lowest first: one of which less than half fits is not
 * sent, unless it would be the only one. 0: no cap.
 */
export function limitEncodings(encodings: RTCRtpEncodingParameters[], capBps: number): void {
  if (capBps <= 0) return;
  let left = capBps;
  for (const [index, encoding] of encodings.filter(({ active }) => active).entries()) {
    const wanted = encoding.maxBitrate ?? capBps;
    const granted = Math.min(wanted, left);
    encoding.active = index === 0 || granted >= wanted / 2;
    if (encoding.active) encoding.maxBitrate = granted;
    left = encoding.active ? left - granted : 0;
  }
}

/** The smallest lowest layer that libwebrtc makes (`svc_config.cc`): of smaller captures it makes fewer layers. */
const LOWEST_LAYER = { long: 240, short: 135 };

/**
 * The plan without the upper spatial layers that nobody receives: the lowest `wanted` stay as they are, which takes a
 * smaller picture in a mode with fewer layers. 0: all are wanted.
 */
export function withSpatialLayers(plan: EncodingPlan, wanted: number, width: number, height: number): EncodingPlan {
  const [, count = '1', temporal = '1', ratio = '', rest = ''] =
    /^L([1-3])T([1-3])(h?)((?:_KEY)?)$/.exec(plan.scalabilityMode ?? '') ?? [];
  const room = Math.min(
    Math.max(width, height) / LOWEST_LAYER.long,
    Math.min(width, height) / LOWEST_LAYER.short,
  );
  const layers = Math.min(Number(count), 1 + Math.max(0, Math.floor(Math.log2(room || 1))));
  if (wanted <= 0 || wanted >= layers) return plan;
  return {
    ...plan,
    scalabilityMode: wanted === 1 ? `L1T${temporal}` : `L${wanted}T${temporal}${ratio}${rest}`,
    scaleDownBy: (ratio === 'h' ? 1.5 : 2) ** (layers - wanted),
  };
}

/** Bitrate needs grow slower than the area (about its power of 0.75); never below a fifth, never above the limit. */
export function scaledBitrate(maxBitrateBps: number, pixels: number): number {
  if (pixels <= 0) return maxBitrateBps;
  const factor = Math.min(1, Math.max(0.2, (pixels / REFERENCE_PIXELS) ** 0.75));
  return Math.round(maxBitrateBps * factor);
}
