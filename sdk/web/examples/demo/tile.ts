/** One picture of the grid: a participant (with or without picture) or a shared screen. */

import type { TrackStats } from '../../src/index';
import { make } from './dom';

/** A tile. */
export class Tile {
  /** What is in the grid. */
  readonly element = make('article', 'tile');
  /** Where the picture plays. */
  readonly video = make('video');
  readonly #initials = make('div', 'initials');
  readonly #label = make('div', 'label');
  readonly #figures = make('div', 'figures');

  constructor(options: { isSelf: boolean; isScreen: boolean }) {
    this.element.classList.toggle('self', options.isSelf);
    this.element.classList.toggle('screen', options.isScreen);
    this.video.autoplay = this.video.muted = this.video.playsInline = true;
    this.#initials.setAttribute('aria-hidden', 'true');
    this.#figures.setAttribute('aria-hidden', 'true');
    this.element.append(this.#initials, this.video, this.#label, this.#figures);
    this.hasPicture = false;
  }

  /** False: initials are shown instead. */
  set hasPicture(value: boolean) {
    this.element.classList.toggle('dark', !value);
    this.#initials.hidden = value;
  }

  /** Name and state below the picture, also for screen readers. */
  setLabel(name: string, state: string): void {
    this.#initials.textContent = initialsOf(name);
    this.#label.textContent = state ? `${name} (${state})` : name;
    this.element.setAttribute('aria-label', this.#label.textContent);
  }

  /** A frame around who speaks. */
  set isSpeaking(value: boolean) {
    this.element.classList.toggle('speaking', value);
  }

  /** Pale while the connection is lost. */
  set isAway(value: boolean) {
    this.element.classList.toggle('away', value);
  }

  /** A sign floats over the picture for a moment. */
  react(sign: string): void {
    const shown = make('span', 'reaction', sign);
    shown.style.left = `${20 + Math.random() * 60}%`;
    shown.addEventListener('animationend', () => shown.remove());
    this.element.append(shown);
  }

  /** Figures of the tracks in this tile. */
  showFigures(tracks: readonly TrackStats[], rttMs: number): void {
    this.#figures.textContent = tracks.map((track) => figureLine(track)).join('\n');
    if (tracks.length > 0) this.#figures.textContent += `\nrtt ${rttMs.toFixed(0)} ms`;
    this.#figures.hidden = tracks.length === 0;
  }
}

function initialsOf(name: string): string {
  const words = name.trim().split(/\s+/);
  return words
    .slice(0, 2)
    .map((word) => Array.from(word)[0] ?? '')
    .join('')
    .toUpperCase();
}

function figureLine(track: TrackStats): string {
  const rate = `${(track.bitrateBps / 1000).toFixed(0).padStart(5)} kbit/s`;
  const loss = `loss ${(track.lossRatio * 100).toFixed(1)} %`;
  const picture =
    track.kind === 'video' ? `${track.width}×${track.height} ${track.framesPerSecond.toFixed(0)} fps ` : '';
  return `${track.direction === 'inbound' ? '↓' : '↑'} ${track.codec.padEnd(4)} ${rate} ${picture}${loss}`;
}
