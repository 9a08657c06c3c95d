/** Asks for remote pictures in the size in which they are shown, and pauses those that nobody sees. */

import { ADAPTIVE_DEBOUNCE_MS } from '../defaults';
import type { TrackWish } from '../options';
import type { RemoteTrack } from './remote-track';

/** Above it, more pixels cannot be told apart at the distance of a telephone. */
const MAX_PIXEL_RATIO = 2;

/** What decides about one element. */
export interface ElementView {
  /** CSS pixels. */
  width: number;
  /** CSS pixels. */
  height: number;
  /** True if some of it is on the screen. */
  isVisible: boolean;
  /** True if the picture fills the element and its edges are cut (`object-fit: cover`). */
  isCover: boolean;
  /** Width by height of the picture; 0 if not known yet. */
  aspect: number;
}

/** The wish for a track that is shown so. No element: the application uses the media itself, no limit. */
export function wishForViews(views: readonly ElementView[], isPageVisible: boolean, pixelRatio: number): TrackWish {
  if (views.length === 0) return {};
  const visible = views.filter(({ isVisible, width, height }) => isVisible && width > 0 && height > 0);
  if (!isPageVisible || visible.length === 0) return { isPaused: true };
  const ratio = Math.min(MAX_PIXEL_RATIO, Math.max(1, pixelRatio));
  return { maxHeight: Math.ceil(Math.max(...visible.map(pictureHeight)) * ratio) };
}

/** Height in CSS pixels at which the picture is drawn in an element. */
function pictureHeight({ width, height, isCover, aspect }: ElementView): number {
  if (aspect <= 0) return height;
  const byWidth = width / aspect;
  return isCover ? Math.max(height, byWidth) : Math.min(height, byWidth);
}

/** Watches the elements of all remote video tracks of a room. */
export class AdaptiveStreams {
  readonly #trackOf = new Map<Element, RemoteTrack>();
  readonly #hidden = new Set<Element>();
  readonly #timers = new Map<RemoteTrack, ReturnType<typeof setTimeout>>();
  readonly #tracks = new Map<RemoteTrack, () => void>();
  readonly #sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => this.#changed(target)));
  readonly #sights = new IntersectionObserver((entries) => entries.forEach((entry) => this.#seen(entry)));
  readonly #onPage = (): void => {
    for (const track of this.#tracks.keys()) this.#schedule(track);
  };

  constructor() {
    document.addEventListener('visibilitychange', this.#onPage);
  }

  /** Begins to watch a track's elements. */
  add(track: RemoteTrack): void {
    if (track.kind !== 'video' || this.#tracks.has(track)) return;
    this.#tracks.set(track, track.on('elementsChanged', () => this.#observe(track)));
    this.#observe(track);
  }

  /** Ends it. */
  remove(track: RemoteTrack): void {
    this.#tracks.get(track)?.();
    this.#tracks.delete(track);
    clearTimeout(this.#timers.get(track));
    this.#timers.delete(track);
    this.#forgetElements(track, new Set());
  }

  /** Ends all. */
  close(): void {
    for (const track of [...this.#tracks.keys()]) this.remove(track);
    document.removeEventListener('visibilitychange', this.#onPage);
    this.#sizes.disconnect();
    this.#sights.disconnect();
  }

  #observe(track: RemoteTrack): void {
    this.#forgetElements(track, track.elements);
    for (const element of track.elements) {
      if (this.#trackOf.has(element)) continue;
      this.#trackOf.set(element, track);
      this.#sizes.observe(element);
      this.#sights.observe(element);
      // The picture's aspect is known from here on.
      element.addEventListener('resize', this.#onResize);
    }
    this.#schedule(track);
  }

  readonly #onResize = (event: Event): void => {
    if (event.target instanceof Element) this.#changed(event.target);
  };

  #forgetElements(track: RemoteTrack, kept: ReadonlySet<Element>): void {
    for (const [element, owner] of [...this.#trackOf]) {
      if (owner !== track || kept.has(element)) continue;
      this.#trackOf.delete(element);
      this.#hidden.delete(element);
      this.#sizes.unobserve(element);
      this.#sights.unobserve(element);
      element.removeEventListener('resize', this.#onResize);
    }
  }

  #seen({ target, isIntersecting }: IntersectionObserverEntry): void {
    if (isIntersecting) this.#hidden.delete(target);
    else this.#hidden.add(target);
    this.#changed(target);
  }

  #changed(element: Element): void {
    const track = this.#trackOf.get(element);
    if (track) this.#schedule(track);
  }

  #schedule(track: RemoteTrack): void {
    clearTimeout(this.#timers.get(track));
    this.#timers.set(track, setTimeout(() => this.#measure(track), ADAPTIVE_DEBOUNCE_MS));
  }

  #measure(track: RemoteTrack): void {
    this.#timers.delete(track);
    const views = [...track.elements].map((element) => this.#view(element));
    track.setViewWish(wishForViews(views, document.visibilityState === 'visible', globalThis.devicePixelRatio));
  }

  #view(element: HTMLMediaElement): ElementView {
    const isPicture = element instanceof HTMLVideoElement;
    return {
      width: element.clientWidth,
      height: element.clientHeight,
      isVisible: !this.#hidden.has(element) || document.pictureInPictureElement === element,
      isCover: getComputedStyle(element).objectFit === 'cover',
      aspect: isPicture && element.videoHeight > 0 ? element.videoWidth / element.videoHeight : 0,
    };
  }
}
