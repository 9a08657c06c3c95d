/** How long received media waits, by what is lost. */

import { describe, expect, it } from 'vitest';
import { PlayoutDelay, lateMs, received, repairMs } from '../src/transport/playout-delay';
import type { Received } from '../src/transport/playout-delay';

const NOTHING: Received = { video: 0, videoLost: 0, videoRepeated: 0, videoRequests: 0, audio: 0, audioRequests: 0, freezes: 0, rttMs: 0 };

/** Feeds a policy second by second with what is new; its targets. */
function targets(seconds: Partial<Received>[], maxMs = 600): number[] {
  const policy = new PlayoutDelay(maxMs);
  const total = { ...NOTHING };
  policy.update({ ...total });
  return seconds.map((news) => {
    for (const key of Object.keys(news) as (keyof Received)[]) total[key] += news[key] ?? 0;
    return policy.update({ ...total, rttMs: 100 });
  });
}

const second = (lost: number, more: Partial<Received> = {}): Partial<Received> => ({ video: 100 - lost, videoLost: lost, audio: 50, ...more });
const repeat = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);

describe('the wait for lost packets', () => {
  it('is as many round trips as repair takes', () => {
    expect(repairMs(0.001, 100)).toBe(0);
    expect(repairMs(0.01, 100)).toBe(140);
    expect(repairMs(0.2, 100)).toBe(280);
    expect(repairMs(0.4, 50)).toBe(270);
  });

  it('begins within a second of loss and is bounded', () => {
    expect(targets([second(0), second(20), second(40)])).toEqual([0, 300, 450]);
    expect(targets([second(40)], 250)).toEqual([250]);
  });

  it('is off by a limit of 0', () => {
    expect(targets([second(40), second(40, { freezes: 1, videoRequests: 9 })], 0)).toEqual([0, 0]);
  });

  it('goes on for a while after the loss, then ends', () => {
    const seen = targets([second(20), ...repeat(15, second(0))]);
    expect(seen.slice(0, 10)).toEqual(repeat(10, 300));
    expect(seen.at(-1)).toBe(0);
  });

  it('grows when pictures stand still all the same, once the change before has taken effect', () => {
    const frozen = second(0, { freezes: 1, videoRequests: 9 });
    expect(targets(repeat(9, frozen))).toEqual([...repeat(4, 300), ...repeat(4, 600), 600]);
  });

  it('shrinks again, soon where nothing is asked for any more', () => {
    const frozen = second(0, { freezes: 1, videoRequests: 9 });
    expect(targets([frozen, ...repeat(20, second(0))]).at(-1)).toBe(0);
    expect(targets([frozen, ...repeat(20, second(0, { videoRequests: 1 }))]).at(-1)).toBe(200);
  });

  it('is longer where packets come late from the publisher, whose path is repaired by repetition alone', () => {
    expect([0.002, 0.01, 0.08, 0.15, 0.3].map((share) => lateMs(share, 100))).toEqual([0, 140, 280, 420, 560]);
    expect(targets(repeat(5, second(0, { videoRequests: 25 })))).toEqual([300, 450, 600, 600, 600]);
  });

  it('takes requests for no such thing where packets are lost here, or only come in another order', () => {
    expect(targets(repeat(5, second(1, { videoRequests: 1 })))).toEqual(repeat(5, 150));
    expect(targets(repeat(5, second(0, { videoRequests: 10, videoRepeated: 11 })))).toEqual(repeat(5, 0));
  });

  it('is no answer to pictures that stand still for other reasons', () => {
    expect(targets(repeat(9, second(0, { freezes: 1 })))).toEqual(repeat(9, 0));
  });

  it('needs enough packets to tell, and takes a new connection', () => {
    expect(targets([{ video: 5, videoLost: 5 }, { video: -5, videoLost: -5 }, second(20)])).toEqual([0, 0, 300]);
  });

  it('counts requests where there is sound only: its retransmissions hide what was lost', () => {
    expect(targets([{ audio: 50, audioRequests: 0 }, { audio: 50, audioRequests: 12 }])).toEqual([0, 300]);
  });
});

describe('totals', () => {
  it('are summed up over streams', () => {
    const inbound = { type: 'inbound-rtp', kind: 'video', packetsReceived: 120, retransmittedPacketsReceived: 20 };
    const report = new Map<string, unknown>([
      ['a', { ...inbound, packetsLost: 25, nackCount: 7, freezeCount: 1 }],
      ['b', { ...inbound, packetsLost: -1 }],
      ['c', { type: 'inbound-rtp', kind: 'audio', packetsReceived: 50, packetsLost: 2, nackCount: 3 }],
      ['d', { type: 'candidate-pair', nominated: true, currentRoundTripTime: 0.05 }],
      ['e', { type: 'candidate-pair', currentRoundTripTime: 0.9 }],
      ['f', { type: 'outbound-rtp', kind: 'video', nackCount: 99 }],
    ]);
    expect(received(report)).toEqual({
      video: 200, videoLost: 24, videoRepeated: 40, videoRequests: 7, audio: 50, audioRequests: 3, freezes: 1, rttMs: 50,
    });
  });
});
