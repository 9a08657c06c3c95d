/**
 * How long the browser holds received media back, by what the path loses.
 *
 * A lost packet that comes again before its picture is due is no freeze. libwebrtc leaves retransmitted frames out of its
 * estimate of jitter, so its buffer of pictures stays as short as if nothing were repaired, and each repair is seen as a
 * stop. That of sound grows only after gaps were heard, and stretches what is said meanwhile.
 */

import { PLAYOUT_HOLD_S, PLAYOUT_INTERVAL_MS } from '../defaults';
import { logger } from '../logger';
import type { StatsReport } from '../stats';
import type { Transport } from './transport';

/**
 * From these shares of packets lost on media waits for one repetition, two and three. Below, the browser is left alone; the
 * steps leave exceptions that are too few to be seen.
 */
const ROUNDS_FROM = [0.005, 0.02, 0.3];
/**
 * The same for requests that no repetition follows: they are for packets that the publisher's path lost, and that come late, as
 * soon as the node has them. Nothing but repetition repairs that path, so it takes more rounds. The share is about one and a
 * half times what is lost, since requests are repeated too.
 */
const LATE_ROUNDS_FROM = [0.005, 0.03, 0.13, 0.2];
/** Weight of a second's share. */
const NEW_SHARE = 0.5;
/** What a repetition takes beside the round trip: until the gap is noticed, and copies that go a little later. */
const REPAIR_MS = 40;
/** Fewer packets in a second say nothing about loss. */
const MIN_PACKETS = 20;
/** A freeze is the network's if so many requests for packets went out in the same second. */
const MIN_REQUESTS = 3;
/** More patience after a second with such a freeze, whatever its cause (the publisher's path, say) ... */
const FREEZE_STEP_MS = 300;
/** ... but not while the last change may still take effect, in seconds; less after each second without, and sooner where
 * nothing at all had to be asked for again. */
const EFFECT_S = 3;
const CALM_STEP_MS = 10;
const WHOLE_STEP_MS = 30;
/** Targets are multiples of this: each change stretches or squeezes sound a little. */
const GRID_MS = 50;

/** Totals of all that is received. */
export interface Received {
  /** Packets of pictures, without retransmissions. */
  video: number;
  /** Packets of pictures that did not come, repaired or not. */
  videoLost: number;
  /** Retransmissions of pictures. */
  videoRepeated: number;
  /** Packets of sound, retransmissions included: those have no stream of their own. */
  audio: number;
  /** Messages that asked for packets of sound again: that one was lost cannot be seen otherwise. */
  audioRequests: number;
  /** The same for pictures. */
  videoRequests: number;
  /** How often a picture stood still. */
  freezes: number;
  /** Milliseconds; 0: not known. */
  rttMs: number;
}

/** What the browser counts; only what is used here. */
interface Counted {
  type: string;
  kind?: string;
  packetsReceived?: number;
  retransmittedPacketsReceived?: number;
  packetsLost?: number;
  nackCount?: number;
  freezeCount?: number;
  nominated?: boolean;
  currentRoundTripTime?: number;
}

/** Sums up a browser's report. */
export function received(report: StatsReport): Received {
  const total = { video: 0, videoLost: 0, videoRepeated: 0, videoRequests: 0, audio: 0, audioRequests: 0, freezes: 0, rttMs: 0 };
  for (const one of report.values() as IterableIterator<Counted>) {
    if (one.type === 'candidate-pair' && one.nominated) total.rttMs = (one.currentRoundTripTime ?? 0) * 1000;
    if (one.type !== 'inbound-rtp') continue;
    const { packetsReceived = 0, retransmittedPacketsReceived = 0, packetsLost = 0, nackCount = 0, freezeCount = 0 } = one;
    if (one.kind === 'audio') {
      total.audio += packetsReceived;
      total.audioRequests += nackCount;
    } else {
      total.video += packetsReceived - retransmittedPacketsReceived;
      total.videoRepeated += retransmittedPacketsReceived;
      total.videoLost += packetsLost;
      total.videoRequests += nackCount;
      total.freezes += freezeCount;
    }
  }
  return total;
}

/** What was received between two totals. */
function between(then: Received, now: Received): Received {
  const keys = Object.keys(then) as (keyof Received)[];
  return Object.fromEntries(keys.map((key) => [key, now[key] - then[key]])) as unknown as Received;
}

/** Share of packets lost, 0 to 1; undefined if too few came to tell. */
function lossOf({ video, videoLost, audio, audioRequests }: Received): number | undefined {
  const lost = Math.max(0, videoLost);
  if (video + lost >= MIN_PACKETS) return lost / (video + lost);
  return audio >= MIN_PACKETS ? audioRequests / (audio + audioRequests) : undefined;
}

/** Requests that neither a loss nor a repetition explains, as a share of the packets of pictures. */
function lateShareOf({ video, videoLost, videoRepeated, videoRequests }: Received): number {
  return Math.max(0, videoRequests - Math.max(videoRepeated, videoLost)) / Math.max(video, MIN_PACKETS);
}

function waitMs(share: number, roundsFrom: number[], rttMs: number): number {
  return roundsFrom.filter((from) => share >= from).length * (rttMs + REPAIR_MS);
}

/** How long repair takes at a share of packets lost (0 to 1); 0 if next to nothing is lost. */
export function repairMs(loss: number, rttMs: number): number {
  return waitMs(loss, ROUNDS_FROM, rttMs);
}

/** The same before this node: the publisher is taken for as far away as we are. */
export function lateMs(share: number, rttMs: number): number {
  return waitMs(share, LATE_ROUNDS_FROM, rttMs);
}

/** Decides once a second. Quick up, slow down. Pure. */
export class PlayoutDelay {
  readonly #maxMs: number;
  /** What the last seconds asked for. */
  readonly #wanted: number[] = [];
  #before: Received | undefined;
  #lateShare = 0;
  #patienceMs = 0;
  #targetMs = 0;
  #unchangedS = EFFECT_S;

  constructor(maxMs: number) {
    this.#maxMs = maxMs;
  }

  /** Takes the totals; what the buffers should hold at least, in milliseconds. 0: as the browser likes. */
  update(now: Received): number {
    const before = this.#before;
    this.#before = now;
    // Of a new connection, or a slot that went.
    if (!before || now.video < before.video || now.audio < before.audio) return this.#targetMs;
    const news = between(before, now);
    const loss = lossOf(news);
    if (loss === undefined) return this.#targetMs;
    this.#adaptPatience(news);
    this.#lateShare += (lateShareOf(news) - this.#lateShare) * NEW_SHARE;
    this.#wanted.push(Math.max(repairMs(loss, now.rttMs), lateMs(this.#lateShare, now.rttMs), this.#patienceMs));
    if (this.#wanted.length > PLAYOUT_HOLD_S) this.#wanted.shift();
    const target = Math.min(this.#maxMs, Math.ceil(Math.max(...this.#wanted) / GRID_MS) * GRID_MS);
    this.#unchangedS = target === this.#targetMs ? this.#unchangedS + 1 : 0;
    return (this.#targetMs = target);
  }

  #adaptPatience({ freezes, videoRequests }: Received): void {
    const isFrozen = freezes > 0 && videoRequests >= MIN_REQUESTS && this.#unchangedS >= EFFECT_S;
    const less = videoRequests > 0 ? CALM_STEP_MS : WHOLE_STEP_MS;
    const next = this.#patienceMs + (isFrozen ? FREEZE_STEP_MS : -less);
    this.#patienceMs = Math.min(this.#maxMs, Math.max(0, next));
  }
}

/** Watches a room's transport and sets its receivers, until closed. */
export class PlayoutDelays {
  readonly #policy: PlayoutDelay;
  readonly #timer: ReturnType<typeof setInterval>;

  /** `transport`: the present one. `maxMs`: never more than this. */
  constructor(transport: () => Transport | undefined, maxMs: number) {
    this.#policy = new PlayoutDelay(maxMs);
    this.#timer = setInterval(() => void this.#adapt(transport()), PLAYOUT_INTERVAL_MS);
  }

  /** Ends it. */
  close(): void {
    clearInterval(this.#timer);
  }

  async #adapt(transport: Transport | undefined): Promise<void> {
    if (transport?.state !== 'connected') return;
    try {
      transport.setPlayoutDelay(this.#policy.update(received(await transport.getStats())));
    } catch (error) {
      logger.debug('no figures', error);
    }
  }
}
