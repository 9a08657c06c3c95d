/** Added to the call page: measures what arrives. */

const call = window.call;

/** The sounds of one page share a context: 48 kHz, as Opus has it. */
const context = new AudioContext({ sampleRate: 48_000 });
const voice = context.createMediaStreamDestination();
// Without any source nothing at all would be sent between the sentences.
const silence = new ConstantSourceNode(context, { offset: 0 });
silence.connect(voice);
silence.start();
let speech;

/** Publishes a silent microphone that `speak` uses later; `wav` is the file in base64. */
call.publishVoice = async (wav) => {
  const bytes = Uint8Array.from(atob(wav), (letter) => letter.charCodeAt(0));
  speech = await context.decodeAudioData(bytes.buffer);
  const mrtc = await import('/mrtc.mjs');
  const publication = await call.room.localParticipant.publish([new mrtc.LocalTrack(voice.stream.getAudioTracks()[0])]);
  return publication.id;
};

/** Says it once. */
call.speak = () => {
  const source = new AudioBufferSourceNode(context, { buffer: speech });
  source.connect(voice);
  source.start();
};

const recorder = `registerProcessor('recorder', class extends AudioWorkletProcessor {
  process([[samples]]) {
    if (samples) this.port.postMessage(samples.slice());
    return true;
  }
});`;
const recorderUrl = URL.createObjectURL(new Blob([recorder], { type: 'text/javascript' }));

/** Records what is heard of somebody from now on; `recorded` ends it. */
call.record = async (identity) => {
  await context.audioWorklet.addModule(recorderUrl);
  const { mediaStreamTrack } = call.remoteTrack(identity, 'microphone');
  const source = context.createMediaStreamSource(new MediaStream([mediaStreamTrack]));
  const node = new AudioWorkletNode(context, 'recorder', { numberOfOutputs: 0, channelCount: 1, channelCountMode: 'explicit' });
  const chunks = [];
  node.port.onmessage = ({ data }) => chunks.push(data);
  source.connect(node);
  call.recorded = async () => {
    source.disconnect();
    node.port.onmessage = null;
    const samples = Int16Array.from(chunks.flatMap((chunk) => [...chunk]), (value) => Math.max(-1, Math.min(1, value)) * 32767);
    return await base64(samples);
  };
};

async function base64(array) {
  const reader = new FileReader();
  const done = new Promise((resolve) => (reader.onload = resolve));
  reader.readAsDataURL(new Blob([array]));
  await done;
  return reader.result.split(',')[1];
}

/** The browser's own reports of what is received, one of each kind. */
async function inbound() {
  const reports = [...(await call.room.getRawStats()).values()].filter(({ type, ...report }) =>
    type === 'inbound-rtp' && (report.packetsReceived ?? 0) > 0);
  const of = (kind) => reports.filter((report) => report.kind === kind).sort((a, b) => b.packetsReceived - a.packetsReceived)[0];
  return { video: of('video'), audio: of('audio') };
}

/** What is sent of each layer of the picture, and what holds it back. */
call.outbound = async () =>
  [...(await call.room.getRawStats()).values()]
    .filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'video')
    .map(({ rid, active, frameWidth, framesPerSecond, targetBitrate, qualityLimitationReason, nackCount, pliCount }) => ({
      rid, active, frameWidth, framesPerSecond, targetBitrate, qualityLimitationReason, nackCount, pliCount,
    }));

/**
 * Observes somebody's picture until `observed`, which gives the time of every frame shown (ms from now) and, each
 * half second, the browser's report of picture and sound with the time `at`.
 */
call.observe = async (identity) => {
  const startedAt = performance.now();
  const video = call.videoOf(identity);
  const shown = [];
  const reports = [{ at: 0, ...(await inbound()) }];
  let isOver = false;
  const note = (now) => {
    shown.push(now - startedAt);
    if (!isOver) video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
  const report = async () => reports.push({ at: performance.now() - startedAt, ...(await inbound()) });
  const timer = setInterval(report, 500);
  call.observed = async () => {
    isOver = true;
    clearInterval(timer);
    await report();
    return { shown, reports };
  };
};
