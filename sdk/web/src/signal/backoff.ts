/** When to try again: a list of waits with jitter, bounded by a grace time. */

import { RECONNECT_DELAYS_MS, RECONNECT_JITTER } from '../defaults';

/** The wait before an attempt (counted from 0), in milliseconds; without its random share at most `longestMs`. */
export function reconnectDelayMs(attempt: number, random: () => number = Math.random, longestMs = Infinity): number {
  const wait = RECONNECT_DELAYS_MS[Math.min(attempt, RECONNECT_DELAYS_MS.length - 1)] ?? 0;
  const base = Math.min(wait, longestMs);
  return Math.round(base * (1 + RECONNECT_JITTER * random()));
}

/** Resolves after a time, or at once when the signal fires. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}
