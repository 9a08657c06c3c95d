/** Chooses and orders codecs for m-lines. Pure, but for the two functions that ask the browser. */

import type { Codec } from '../options';
import type { Kind } from '../words';

/** What the browser says of a codec. */
export type CodecCapability = Pick<RTCRtpCodec, 'mimeType' | 'sdpFmtpLine' | 'clockRate' | 'channels'>;

/** Redundant Opus (RFC 2198). The server chooses when it is sent; it could not take it out of encrypted frames. */
const AUDIO_SEND = ['opus', 'red'];
/** Audio codecs that are offered for receiving, best first; a phone gateway may send the old ones. */
const AUDIO_RECEIVE = [...AUDIO_SEND, 'g722', 'pcmu', 'pcma'];
const withoutRed = (names: readonly string[]): string[] => names.filter((name) => name !== 'red');

/** The lower-case SDP name of a codec. */
export const codecName = (codec: Pick<RTCRtpCodec, 'mimeType'>): string =>
  codec.mimeType.slice(codec.mimeType.indexOf('/') + 1).toLowerCase();

/**
 * H.264 without packetization-mode=1 and VP9 beyond profile 0 are left out: nobody needs them and each costs lines in
 * every m-line of the offer.
 */
function isUseful({ mimeType, sdpFmtpLine = '' }: CodecCapability): boolean {
  switch (codecName({ mimeType })) {
    case 'h264':
      return sdpFmtpLine.includes('packetization-mode=1');
    case 'vp9':
      return sdpFmtpLine === '' || sdpFmtpLine.includes('profile-id=0');
    case 'av1':
      return !sdpFmtpLine.includes('profile=1');
    default:
      return true;
  }
}

/**
 * The capabilities to offer: those named, in the order of the names, then what repairs them. Empty if the browser has
 * none of them.
 */
export function selectCodecs<C extends CodecCapability>(
  capabilities: readonly C[],
  names: readonly string[],
  repairs: readonly string[] = ['rtx'],
): C[] {
  const chosen = names.flatMap((name) => capabilities.filter((c) => codecName(c) === name && isUseful(c)));
  return chosen.length === 0 ? [] : [...chosen, ...capabilities.filter((c) => repairs.includes(codecName(c)))];
}

/**
 * What `setCodecPreferences` takes for a publish m-line. The browser checks the list against what it can *receive*
 * (Chromium, and W3C webrtc-pc until the fix of issue 2888), so it is taken from there, limited to what it can send.
 */
export function sendPreferences(kind: Kind, names: readonly string[], isEncrypted: boolean): RTCRtpCodec[] {
  const sendable = new Set((RTCRtpSender.getCapabilities(kind)?.codecs ?? []).map(codecName));
  const receivable = RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [];
  const wanted = kind === 'video' ? names : isEncrypted ? withoutRed(AUDIO_SEND) : AUDIO_SEND;
  return selectCodecs(receivable, wanted.filter((name) => sendable.has(name)));
}

/** What `setCodecPreferences` takes for a slot. */
export function receivePreferences(kind: Kind, names: readonly Codec[], isEncrypted: boolean): RTCRtpCodec[] {
  const receivable = RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [];
  const wanted = kind === 'video' ? names : isEncrypted ? withoutRed(AUDIO_RECEIVE) : AUDIO_RECEIVE;
  return selectCodecs(receivable, wanted, ['rtx', 'flexfec-03']);
}
