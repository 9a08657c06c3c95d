/** Collects wishes for tracks, so that a change of layout becomes one request. */

import { WISH_DEBOUNCE_MS } from './defaults';
import { logger } from './logger';
import type { TrackWish } from './options';

/** A wish as it is sent. */
export interface WireWish {
  trackId: string;
  maxHeight: number;
  maxFps: number;
  isPaused: boolean;
  priority: number;
}

/** To the wire: whole numbers in range, 0 for no limit. */
export function wishToWire(trackId: string, wish: TrackWish): WireWish {
  const whole = (value = 0): number => Math.max(0, Math.round(value));
  return {
    trackId,
    maxHeight: whole(wish.maxHeight),
    maxFps: whole(wish.maxFps),
    isPaused: wish.isPaused ?? false,
    priority: Math.min(255, whole(wish.priority)),
  };
}

/** Waits for a quiet moment, then sends the newest wish of each track. */
export class WishCollector {
  readonly #send: (wishes: WireWish[]) => Promise<void>;
  readonly #waiting = new Map<string, WireWish>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(send: (wishes: WireWish[]) => Promise<void>) {
    this.#send = send;
  }

  /** Adds a wish; replaces one of the same track that was not sent yet. */
  add(trackId: string, wish: TrackWish): void {
    this.#waiting.set(trackId, wishToWire(trackId, wish));
    this.#timer ??= setTimeout(() => this.#flush(), WISH_DEBOUNCE_MS);
  }

  /** A track is gone. */
  forget(trackId: string): void {
    this.#waiting.delete(trackId);
  }

  /** Drops all. */
  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#waiting.clear();
  }

  #flush(): void {
    this.#timer = undefined;
    const wishes = [...this.#waiting.values()];
    this.#waiting.clear();
    if (wishes.length === 0) return;
    // A track that ended meanwhile makes the request fail; what is left is asked for with the next change of size.
    this.#send(wishes).catch((error: unknown) => logger.info('wishes were not taken', error));
  }
}
