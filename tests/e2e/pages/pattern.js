/**
 * Pictures and tones that identify their sender; the same pattern as sdk/python's `mrtc_sdk.pattern`: the upper half is a
 * row of 16 cells, eight bits of the sender's number, then eight bits of the frame counter; a bar moves below.
 */

const CELLS = 16;

/**
 * A canvas track that draws the pattern; `stop()` ends the drawing. With `texture` the lower half moves so that it costs
 * an encoder as much as a camera's picture does, or that share of it.
 */
export function patternTrack(number, { width = 640, height = 360, fps = 15, texture = 0 } = {}) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d');
  const grain = texture > 0 && grainOf(width, height);
  let counter = 0;
  const draw = () => {
    context.fillStyle = '#808080';
    context.fillRect(0, 0, width, height);
    for (let cell = 0; cell < CELLS; cell++) {
      const value = cell < 8 ? number : counter;
      context.fillStyle = (value >> (7 - (cell % 8))) & 1 ? '#ebebeb' : '#101010';
      context.fillRect((cell * width) / CELLS, 0, width / CELLS + 1, height / 2);
    }
    if (grain) {
      const from = [(counter * 3) % width, (counter * 2) % (height / 2)];
      const share = width * texture;
      context.drawImage(grain, ...from, share, height / 2, 0, height / 2, share, height / 2);
    }
    context.fillStyle = '#ebebeb';
    context.fillRect((counter * 4) % width, height / 2, width / 16, height / 2);
    counter = (counter + 1) % 256;
  };
  draw();
  const timer = setInterval(draw, 1000 / fps);
  const [track] = canvas.captureStream(fps).getVideoTracks();
  return { track, stop: () => clearInterval(timer) };
}

/** Blotches of several sizes, twice as large as the lower half, so that it can be moved about. */
function grainOf(width, height) {
  const canvas = new OffscreenCanvas(width * 2, height);
  const context = canvas.getContext('2d');
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (const size of [64, 16, 6]) {
    for (let i = 0; i < (canvas.width * canvas.height) / (size * size * 2); i++) {
      context.fillStyle = `rgba(${random() * 255},${random() * 255},${random() * 255},0.7)`;
      context.fillRect(random() * canvas.width, random() * canvas.height, size, size);
    }
  }
  return canvas;
}

/** What a video element shows now: `{number, counter, width, height}`; number is null if it is not the pattern. */
export function readPattern(video) {
  const width = 320;
  const height = 180;
  const canvas = (readPattern.canvas ??= Object.assign(document.createElement('canvas'), { width, height }));
  const context = canvas.getContext('2d', { willReadFrequently: true });
  const seen = { number: null, counter: null, width: video.videoWidth, height: video.videoHeight };
  if (video.videoWidth === 0) return seen;
  context.drawImage(video, 0, 0, width, height);
  const bits = [];
  for (let cell = 0; cell < CELLS; cell++) {
    const left = (cell * width) / CELLS;
    const { data } = context.getImageData(left + 5, height / 8, width / CELLS - 10, height / 4);
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum += data[i] + data[i + 1] + data[i + 2];
    const mean = sum / ((data.length / 4) * 3);
    if (mean > 90 && mean < 165) return seen;
    bits.push(mean > 128 ? 1 : 0);
  }
  const value = (some) => some.reduce((all, bit) => all * 2 + bit, 0);
  return { ...seen, number: value(bits.slice(0, 8)), counter: value(bits.slice(8)) };
}

let audio;
const audioContext = () => (audio ??= new AudioContext());

/** A track that plays a tone. */
export function toneTrack(frequencyHz) {
  const context = audioContext();
  const oscillator = new OscillatorNode(context, { frequency: frequencyHz });
  const gain = new GainNode(context, { gain: 0.3 });
  const destination = context.createMediaStreamDestination();
  oscillator.connect(gain).connect(destination);
  oscillator.start();
  return destination.stream.getAudioTracks()[0];
}

/** Listens to a track: the returned function gives the strongest frequency in Hz, 0 for silence. */
export function listen(track) {
  const context = audioContext();
  const analyser = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const bins = new Float32Array(analyser.frequencyBinCount);
  return () => {
    analyser.getFloatFrequencyData(bins);
    const peak = bins.indexOf(Math.max(...bins));
    return bins[peak] > -60 ? (peak * context.sampleRate) / analyser.fftSize : 0;
  };
}
