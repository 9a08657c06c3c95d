/** A short summary of getStats: what an overlay shows, by track. Pure but for the report it is given. */

import type { Kind } from './words';

/** Figures of one m-line in the interval since the summary before. */
export interface TrackStats {
  /** The m-line. */
  mid: string;
  /** The track that it carries; empty if it is not known any more. */
  trackId: string;
  /** Sound or picture. */
  kind: Kind;
  /** `inbound`: received. */
  direction: 'inbound' | 'outbound';
  /** Bits per second, without overhead. */
  bitrateBps: number;
  /** Received: lost of expected packets in the interval. Sent: as the receiver reports. 0 to 1. */
  lossRatio: number;
  /** Frames per second decoded or encoded; pictures only. */
  framesPerSecond: number;
  /** Pixels; the largest encoding that is sent; 0 if none. */
  width: number;
  /** Pixels. */
  height: number;
  /** Variation of the arrival times in milliseconds; received only. */
  jitterMs: number;
  /** Codec, lower case; empty if not known. */
  codec: string;
  /** Seconds that the picture stood still, in total; received pictures only. */
  freezeSeconds: number;
}

/** Figures of a whole transport. */
export interface RoomStats {
  /** Round trip on the media path in milliseconds; 0 if not known. */
  rttMs: number;
  /** What the sender's estimate allows in bits per second; 0 if not known. */
  availableOutgoingBps: number;
  /** By m-line and direction. */
  tracks: TrackStats[];
}

/** What the browser counts; only what is used here. */
interface Counted {
  type: string;
  timestamp: number;
  mid?: string;
  kind?: string;
  bytesReceived?: number;
  bytesSent?: number;
  packetsReceived?: number;
  packetsLost?: number;
  packetsSent?: number;
  framesPerSecond?: number;
  frameWidth?: number;
  frameHeight?: number;
  jitter?: number;
  codecId?: string;
  mimeType?: string;
  remoteId?: string;
  fractionLost?: number;
  totalFreezesDuration?: number;
  currentRoundTripTime?: number;
  availableOutgoingBitrate?: number;
  nominated?: boolean;
  state?: string;
}

/** The part of RTCStatsReport that is used. */
export type StatsReport = ReadonlyMap<string, unknown>;

/** Figures of the time between two reports; without an earlier one all rates are 0. */
export function summarize(report: StatsReport, before?: StatsReport): RoomStats {
  const stats: RoomStats = { rttMs: 0, availableOutgoingBps: 0, tracks: [] };
  const outbound = new Map<string, TrackStats>();
  for (const [id, value] of report) {
    const now = value as Counted;
    const then = before?.get(id) as Counted | undefined;
    if (now.type === 'candidate-pair' && now.nominated && now.state === 'succeeded') {
      stats.rttMs = (now.currentRoundTripTime ?? 0) * 1000;
      stats.availableOutgoingBps = now.availableOutgoingBitrate ?? 0;
    } else if (now.type === 'inbound-rtp') {
      // A slot that never carried anything has no packets: nothing to show.
      if (now.packetsReceived) stats.tracks.push(inboundStats(now, then, report));
    } else if (now.type === 'outbound-rtp' && now.packetsSent) {
      addEncoding(outbound, now, then, report);
    }
  }
  stats.tracks.push(...outbound.values());
  return stats;
}

function inboundStats(now: Counted, then: Counted | undefined, report: StatsReport): TrackStats {
  const lost = delta(now.packetsLost, then?.packetsLost);
  const expected = delta(now.packetsReceived, then?.packetsReceived) + lost;
  return {
    ...common(now, report),
    direction: 'inbound',
    bitrateBps: rate(now.bytesReceived, then?.bytesReceived, now, then) * 8,
    lossRatio: expected > 0 ? Math.max(0, lost) / expected : 0,
    jitterMs: (now.jitter ?? 0) * 1000,
    freezeSeconds: now.totalFreezesDuration ?? 0,
  };
}

/** The encodings of a simulcast track are one track here: bitrates add up, the largest picture counts. */
function addEncoding(
  outbound: Map<string, TrackStats>,
  now: Counted,
  then: Counted | undefined,
  report: StatsReport,
): void {
  const remote = report.get(now.remoteId ?? '') as Counted | undefined;
  const one: TrackStats = {
    ...common(now, report),
    direction: 'outbound',
    bitrateBps: rate(now.bytesSent, then?.bytesSent, now, then) * 8,
    lossRatio: remote?.fractionLost ?? 0,
    jitterMs: 0,
    freezeSeconds: 0,
  };
  const known = outbound.get(one.mid);
  if (!known) {
    outbound.set(one.mid, one);
    return;
  }
  const isLarger = one.height > known.height && one.bitrateBps > 0;
  outbound.set(one.mid, {
    ...(isLarger ? one : known),
    bitrateBps: known.bitrateBps + one.bitrateBps,
    lossRatio: Math.max(known.lossRatio, one.lossRatio),
  });
}

function common(
  now: Counted,
  report: StatsReport,
): Pick<TrackStats, 'mid' | 'trackId' | 'kind' | 'framesPerSecond' | 'width' | 'height' | 'codec'> {
  const codec = report.get(now.codecId ?? '') as Counted | undefined;
  return {
    mid: now.mid ?? '',
    trackId: '',
    kind: now.kind === 'audio' ? 'audio' : 'video',
    framesPerSecond: now.framesPerSecond ?? 0,
    width: now.frameWidth ?? 0,
    height: now.frameHeight ?? 0,
    codec: codec?.mimeType?.split('/')[1]?.toLowerCase() ?? '',
  };
}

const delta = (now = 0, then = now): number => now - then;

function rate(value: number | undefined, before: number | undefined, now: Counted, then: Counted | undefined): number {
  const seconds = then ? (now.timestamp - then.timestamp) / 1000 : 0;
  return seconds > 0 ? Math.max(0, delta(value, before)) / seconds : 0;
}
