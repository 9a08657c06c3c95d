/** Opens camera, microphone and screen with the application's constraints. */

import { DeviceError } from '../errors';
import type { CaptureDefaults } from '../options';
import { LocalTrack } from './local-track';

async function open(kind: 'camera' | 'microphone', constraints: MediaTrackConstraints): Promise<MediaStreamTrack> {
  try {
    const stream = await navigator.mediaDevices.getUserMedia(
      kind === 'camera' ? { video: constraints } : { audio: constraints },
    );
    const [track] = stream.getTracks();
    if (track) return track;
  } catch (error) {
    throw DeviceError.fromCapture(kind, error);
  }
  throw new DeviceError('DEVICE_NOT_FOUND', `no ${kind} gave a track`);
}

/**
 * A track of the default (or constrained) camera.
 *
 * @throws DeviceError
 */
export async function captureCamera(capture: CaptureDefaults, stopOnMute: boolean): Promise<LocalTrack> {
  const reopen = (): Promise<MediaStreamTrack> => open('camera', capture.camera);
  return new LocalTrack(await reopen(), { source: 'camera' }, { reopen, stopOnMute });
}

/**
 * A track of the default (or constrained) microphone.
 *
 * @throws DeviceError
 */
export async function captureMicrophone(capture: CaptureDefaults): Promise<LocalTrack> {
  const reopen = (): Promise<MediaStreamTrack> => open('microphone', capture.microphone);
  return new LocalTrack(await reopen(), { source: 'microphone' }, { reopen, stopOnMute: false });
}

/**
 * Tracks of a screen or window that the person picks; the second one is its sound, if the browser gives it.
 *
 * @throws DeviceError
 */
export async function captureScreen(capture: CaptureDefaults): Promise<LocalTrack[]> {
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getDisplayMedia(capture.screenShare);
  } catch (error) {
    throw DeviceError.fromCapture('screen', error);
  }
  return stream.getTracks().map(
    (track) => new LocalTrack(track, { source: track.kind === 'audio' ? 'screen_share_audio' : 'screen_share' }),
  );
}
