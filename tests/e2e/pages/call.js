/** One participant, driven by a test through `window.call`. Everything is asked of the SDK's public surface. */

import * as mrtc from '/mrtc.mjs';
import { listen, patternTrack, readPattern, toneTrack } from './pattern.js';

const call = { room: undefined, events: [], messages: [], data: [] };
window.call = call;
mrtc.setLogLevel('info');

const videos = new Map(); // track id -> element
const ears = new Map(); // track id -> function
const patterns = new Map(); // number -> pattern

const note = (name, ...details) => call.events.push([name, ...details]);

function follow(room) {
  for (const name of ['connectionStateChanged', 'disconnected']) {
    room.on(name, (value, error) => note(name, value, error?.code ?? ''));
  }
  for (const name of ['participantJoined', 'participantLeft', 'participantUpdated']) {
    room.on(name, (participant, reason) => note(name, participant.identity, reason ?? ''));
  }
  for (const name of ['trackMuted', 'trackUnmuted']) {
    room.on(name, (track, participant) => note(name, participant.identity, track.source));
  }
  room.on('encryptionError', (error, track, { identity }) => note('encryptionError', identity, track.kind, error.code));
  room.on('encryptionRestored', (track, { identity }) => note('encryptionRestored', identity, track.kind));
  for (const name of ['mediaLost', 'mediaRestored']) room.on(name, () => note(name, performance.now()));
  room.on('trackSubscriptionFailed', (trackId, error) => note('trackSubscriptionFailed', trackId, error.code));
  room.on('activeSpeakersChanged', (speakers) => note('speakers', speakers.map((s) => s.participant.identity).join()));
  room.on('recordingChanged', ({ isActive }) => note('recording', isActive));
  room.on('messageReceived', ({ seq, identity, text, isPrivate }) => call.messages.push({ seq, identity, text, isPrivate }));
  room.on('dataReceived', ({ topic, participant, identity, payload, text, isReliable, hasGap }) => {
    const known = participant?.identity === identity;
    call.data.push({ topic, identity, known, text: text ?? null, length: payload.length, isReliable, hasGap });
  });
  room.on('trackSubscribed', (track, _, participant) => {
    note('trackSubscribed', participant.identity, track.source);
    const element = track.attach();
    element.dataset.track = track.id;
    document.body.append(element);
    if (track.kind === 'video') videos.set(track.id, element);
    else ears.set(track.id, listen(track.mediaStreamTrack));
    track.on('mediaChanged', (media) => media && track.kind === 'audio' && ears.set(track.id, listen(media)));
  });
  room.on('trackUnsubscribed', (track, _, participant) => {
    note('trackUnsubscribed', participant.identity, track.source);
    for (const element of track.detach()) element.remove();
    videos.delete(track.id);
    ears.delete(track.id);
  });
}

/** A played file and a WHIP stream have sound and picture of one source. */
const find = (identity, source, kind = source === 'microphone' ? 'audio' : 'video') =>
  [...call.room.remoteParticipants.values()]
    .find((one) => one.identity === identity)
    ?.tracks.find((track) => track.source === source && track.kind === kind);

call.remoteTrack = find;

/** The element that shows somebody. */
call.videoOf = (identity, source = 'camera') => videos.get(find(identity, source).id);

/** Joins; returns nothing, or the error as data. `e2ee.keys`: keys by identity, as a provider would give them. */
call.join = async (url, token, { withoutScriptTransform, ...options } = {}) => {
  if (withoutScriptTransform) delete globalThis.RTCRtpScriptTransform;
  if (options.e2ee?.keys) {
    const { keys } = options.e2ee;
    options.e2ee = { keyProvider: async (identity, index) => keys[`${identity}:${index}`] };
  }
  const room = new mrtc.Room(options);
  follow(room);
  try {
    await room.connect(url, token, options);
    call.room = room;
    return null;
  } catch (error) {
    return { name: error.name, code: error.code, message: error.message };
  }
};

/** Sends on a data channel; returns nothing, or the error as data. */
call.publishData = async (payload, options) => {
  try {
    await call.room.publishData(payload, options);
    return null;
  } catch (error) {
    return { name: error.name, code: error.code, message: error.message };
  }
};

/** The same with so many bytes. */
call.publishBytes = (length, options) => call.publishData(new Uint8Array(length).fill(7), options);

/** Joins and leaves again; gives the milliseconds from the call to the first remote frame that was shown. */
call.timeToFirstFrame = async (url, token, timeoutMs = 10_000) => {
  const room = new mrtc.Room({});
  const video = document.body.appendChild(document.createElement('video'));
  const shown = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('no frame')), timeoutMs);
    room.on('trackSubscribed', (track) => {
      if (track.kind !== 'video') return;
      track.attach(video);
      video.requestVideoFrameCallback((now) => resolve(now));
    });
  });
  const startedAt = performance.now();
  await room.connect(url, token);
  const joinedMs = performance.now() - startedAt;
  try {
    return { joinedMs, firstFrameMs: (await shown) - startedAt };
  } finally {
    await room.disconnect();
    video.remove();
  }
};

/** Sets a key of end-to-end encryption, or ratchets the own one. */
call.setKey = (key, options) => call.room.e2ee.setKey(key, options);
call.ratchet = () => call.room.e2ee.ratchet();

/** Publishes the pattern and, if a frequency is given, a tone, as one publication. */
call.publish = async (number, frequencyHz = 0, { source, simulcast, scalabilityMode, ...options } = {}) => {
  const pattern = patternTrack(number, options);
  patterns.set(number, pattern);
  const given = Object.entries({ source, simulcast, scalabilityMode }).filter(([, value]) => value !== undefined);
  const chosen = Object.fromEntries(given);
  const tracks = [new mrtc.LocalTrack(pattern.track, chosen)];
  if (frequencyHz) tracks.push(new mrtc.LocalTrack(toneTrack(frequencyHz)));
  const publication = await call.room.localParticipant.publish(tracks, { tag: 'test' });
  return publication.id;
};

/** Ends the publication with this id. */
call.unpublish = async (id) => {
  await call.room.localParticipant.unpublish(call.room.localParticipant.publications.get(id));
};

/** Mutes or unmutes an own track. */
call.mute = async (source, isMuted) => {
  const self = call.room.localParticipant;
  await (isMuted ? self.mute(self.track(source)) : self.unmute(self.track(source)));
};

/** What is seen of somebody. */
call.see = (identity, source = 'camera') => {
  const track = find(identity, source);
  const video = track && videos.get(track.id);
  return video ? readPattern(video) : null;
};

/** The strongest frequency that is heard of somebody; null without a track. */
call.hear = (identity) => {
  const track = find(identity, 'microphone') ?? find(identity, 'file', 'audio');
  const ear = track && ears.get(track.id);
  return ear ? ear() : null;
};

/** Shows somebody's picture in another size. */
call.resize = (identity, width, height, source = 'camera') => {
  const video = videos.get(find(identity, source).id);
  Object.assign(video.style, { width: `${width}px`, height: `${height}px` });
};

/** State of a remote track. */
call.track = (identity, source) => {
  const track = find(identity, source);
  return track ? { id: track.id, isMuted: track.isMuted, isSubscribed: track.isSubscribed, codec: track.codec } : null;
};

/** The codec in which somebody's picture arrives. */
call.receivedCodec = async (identity, source = 'camera') => {
  const track = find(identity, source);
  const { tracks } = await call.room.getStats();
  return tracks.find(({ trackId }) => trackId === track?.id)?.codec ?? null;
};

/** Watches a picture: the longest time in milliseconds in which it did not change, until `stop`. */
call.watch = (identity, source = 'camera') => {
  let last = -1;
  let changedAt = performance.now();
  let longestMs = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    const counter = call.see(identity, source)?.counter ?? null;
    longestMs = Math.max(longestMs, now - changedAt);
    if (counter !== null && counter !== last) [last, changedAt] = [counter, now];
  }, 20);
  call.longestStill = () => {
    clearInterval(timer);
    return longestMs;
  };
};

call.identities = () => [...call.room.remoteParticipants.values()].map(({ identity }) => identity).sort();
