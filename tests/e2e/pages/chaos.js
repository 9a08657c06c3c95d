/** Added to the call page: watches everybody all the time and talks, as the Python clients of `tests/chaos` do. */

import * as mrtc from '/mrtc.mjs';
import { patternTrack, toneTrack } from '/pattern.js';

const call = window.call;
const LOOK_MS = 100;
const TALK_MS = 500;
const FPS = 20;

const seen = new Map(); // track id -> { last, longest, shown }: milliseconds of performance.now(), frames shown so far
const heard = new Map(); // identity of who talks -> { last, longest }, as of the looks
let known = 0; // messages that were looked at
const sent = [];
let talking = false;

/** Frames that were shown while the page was busy and had no callback count as spread evenly over the time since the last one. */
const frame = (id, now, shown) => {
  const one = seen.get(id) ?? { last: now, longest: 0, shown };
  const gap = (now - one.last) / Math.max(1, shown - one.shown);
  seen.set(id, { last: now, longest: Math.max(one.longest, gap), shown });
};

/** Follows the frames of a picture for as long as its element is there. */
function follow(id, video) {
  const next = (_, { presentationTime, presentedFrames }) => {
    frame(id, presentationTime, presentedFrames);
    if (video.isConnected) video.requestVideoFrameCallback(next);
  };
  video.dataset.followed = 'true';
  video.requestVideoFrameCallback(next);
}

function look() {
  const now = performance.now();
  for (; known < call.messages.length; known++) {
    const { identity } = call.messages[known];
    const one = heard.get(identity) ?? { last: now, longest: 0 };
    heard.set(identity, { last: now, longest: Math.max(one.longest, now - one.last) });
  }
  for (const video of document.querySelectorAll('video[data-track]:not([data-followed])')) follow(video.dataset.track, video);
  for (const participant of call.room?.remoteParticipants.values() ?? []) {
    const sound = participant.tracks.find(({ kind }) => kind === 'audio');
    if (sound && call.hear(participant.identity) > 0) seen.set(sound.id, { last: now, longest: 0 });
  }
}

/** Picture and tone, each a publication of its own. */
call.publishAll = async (number, frequencyHz) => {
  const self = call.room.localParticipant;
  await self.publish([new mrtc.LocalTrack(patternTrack(number, { width: 320, height: 192, fps: FPS }).track)]);
  await self.publish([new mrtc.LocalTrack(toneTrack(frequencyHz))]);
  setInterval(look, LOOK_MS);
};

/** Gaps are counted from now on. */
call.mark = () => {
  const now = performance.now();
  for (const [id, one] of seen) seen.set(id, { ...one, last: Math.max(one.last, now - 1000 / FPS), longest: 0 });
  for (const [identity, one] of heard) heard.set(identity, { last: Math.max(one.last, now - TALK_MS), longest: 0 });
};

call.talk = () => {
  talking = true;
  const say = async () => {
    for (let number = 1; talking; number++) {
      await call.room.sendMessage(String(number));
      sent.push(number);
      await new Promise((resolve) => setTimeout(resolve, TALK_MS));
    }
  };
  void say();
};

call.beQuiet = () => {
  talking = false;
};

/** Tracks of the others with the milliseconds since their last frame (null: none yet) and the longest gap of each picture; of messages too. */
call.tell = () => {
  const now = performance.now();
  const tracks = [...call.room.remoteParticipants.values()].flatMap(({ identity, tracks }) =>
    tracks.map(({ id, kind }) => {
      const one = seen.get(id);
      const isPicture = kind === 'video' && one;
      return { id, identity, agoMs: one ? now - one.last : null, gapMs: isPicture ? Math.max(one.longest, now - one.last) : 0 };
    }));
  const messageGapMs = Math.max(0, ...[...heard.values()].map(({ last, longest }) => Math.max(longest, now - last)));
  return { tracks, sent, messageGapMs, received: call.messages.map(({ identity, text }) => [identity, Number(text)]) };
};
