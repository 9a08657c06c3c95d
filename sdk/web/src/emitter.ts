/** A typed event emitter: the base of every object of the SDK that has something to tell. */

import { logger } from './logger';

/** Event name to tuple of listener arguments. */
export type EventMap = Record<string, unknown[]>;

/** A listener for one event of a map. */
export type Listener<Args extends unknown[]> = (...args: Args) => void;

/** Calls listeners in the order of their registration; a listener that throws never stops the others. */
export class Emitter<Events extends { [K in keyof Events]: unknown[] }> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();

  /** Adds a listener; the returned function removes it again. */
  on<K extends keyof Events>(event: K, listener: Listener<Events[K]>): () => void {
    const listeners = this.#listeners.get(event) ?? new Set();
    listeners.add(listener);
    this.#listeners.set(event, listeners);
    return () => this.off(event, listener);
  }

  /** Adds a listener for the next occurrence only; the returned function removes it before that. */
  once<K extends keyof Events>(event: K, listener: Listener<Events[K]>): () => void {
    const off = this.on(event, (...args) => {
      off();
      listener(...args);
    });
    return off;
  }

  /** Removes a listener; unknown ones are ignored. */
  off<K extends keyof Events>(event: K, listener: Listener<Events[K]>): void {
    this.#listeners.get(event)?.delete(listener);
  }

  /** Removes every listener. */
  removeAllListeners(): void {
    this.#listeners.clear();
  }

  /** Tells the listeners. Meant for the object itself, not for applications. */
  emit<K extends keyof Events>(event: K, ...args: Events[K]): void {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        (listener as Listener<unknown[]>)(...args);
      } catch (error) {
        logger.error(`a listener of "${String(event)}" threw`, error);
      }
    }
  }
}
