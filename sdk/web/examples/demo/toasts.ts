/** Short notes at the edge of the page; errors say what to do next. */

import type { MrtcErrorCode } from '../../src/index';
import { MrtcError } from '../../src/index';
import { element, make } from './dom';
import { RestError } from './rest';

const SHOWN_MS = 7_000;
const MAX_SHOWN = 4;

const NEXT_STEPS: Partial<Record<MrtcErrorCode, string>> = {
  CONNECTION_FAILED: 'Check that the server runs and that this page was opened from it, then try again.',
  TIMEOUT: 'The server is busy or far away. Try again.',
  TOKEN_EXPIRED: 'Reload the page to get a new token.',
  UNAUTHENTICATED: 'Reload the page to get a new token.',
  PERMISSION_DENIED: 'Your token does not permit this. Ask whoever runs the room.',
  NO_CAPACITY: 'No media server has room at the moment. Try again in a minute.',
  UNAVAILABLE: 'A part of the suite is starting or gone. Try again in a few seconds.',
  LIMIT_EXCEEDED: 'The room or the app is full. Use another room, or raise its limit.',
  DEVICE_NOT_ALLOWED: 'Permit it in the browser (the icon at the left of the address), then try again.',
  DEVICE_NOT_FOUND: 'Plug a device in, or join without it.',
  DEVICE_FAILED: 'Close other programs that use the device, then try again.',
  NOT_SUPPORTED: 'Open the page over HTTPS or from localhost, in a current browser.',
  NO_COMMON_CODEC: 'This browser cannot decode what the other one sends.',
  BAD_MEDIA: 'Choose an MP4, WebM or MKV file with H.264, VP8, AAC, Opus or MP3.',
  MEDIA_ENCRYPTED: 'Nobody but the people in the room can see this call, so it cannot be recorded.',
  TOO_LARGE: 'Choose something smaller.',
};

/** A note. */
export function note(title: string, text = '', className = ''): void {
  const box = element('toasts', HTMLDivElement);
  const toast = make('div', `toast ${className}`);
  toast.append(make('strong', '', title));
  if (text) toast.append(make('span', '', text));
  box.append(toast);
  while (box.childElementCount > MAX_SHOWN) box.firstElementChild?.remove();
  setTimeout(() => toast.remove(), SHOWN_MS);
}

/** What went wrong and what to do next. */
export function tellError(error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof MrtcError || error instanceof RestError ? error.code : undefined;
  // The REST API writes its codes in lower case.
  note(message, (code && NEXT_STEPS[code.toUpperCase() as MrtcErrorCode]) ?? '', 'error');
}
