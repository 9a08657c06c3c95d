// Usage: node play.mjs WHEP_URL TOKEN SECONDS OUT.webm — plays a room by WHEP and records what it received (VP8, Opus).
import { writeFileSync } from "node:fs";
import { RTCPeerConnection, RTCRtpCodecParameters, useVP8 } from "werift";
import { MediaRecorder } from "werift/nonstandard";

const [url, token, seconds, out] = process.argv.slice(2);
const pc = new RTCPeerConnection({
  bundlePolicy: "max-bundle",
  iceServers: [],
  codecs: {
    audio: [new RTCRtpCodecParameters({ mimeType: "audio/opus", clockRate: 48000, channels: 2 })],
    video: [useVP8()],
  },
});
const tracks = [];
const packets = { audio: 0, video: 0 };
for (const kind of ["video", "audio"]) {
  const transceiver = pc.addTransceiver(kind, { direction: "recvonly" });
  transceiver.onTrack.subscribe((track) => {
    tracks.push(track);
    track.onReceiveRtp.subscribe(() => (packets[kind] += 1));
    if (kind === "video") {
      const timer = setInterval(() => transceiver.receiver.sendRtcpPLI(track.ssrc), 1000);
      setTimeout(() => clearInterval(timer), Number(seconds) * 1000);
    }
  });
}
await pc.setLocalDescription(await pc.createOffer());
const response = await fetch(url, {
  method: "POST",
  headers: { "content-type": "application/sdp", authorization: `Bearer ${token}` },
  body: pc.localDescription.sdp,
});
const body = await response.text();
if (response.status !== 201) {
  console.error(`WHEP answered ${response.status}: ${body}`);
  process.exit(1);
}
await pc.setRemoteDescription({ type: "answer", sdp: body });
const recorder = new MediaRecorder({ path: out, tracks, numOfTracks: tracks.length });
await new Promise((resolve) => setTimeout(resolve, Number(seconds) * 1000));
await recorder.stop();
const resource = new URL(response.headers.get("location"), url);
const ended = await fetch(resource, { method: "DELETE", headers: { authorization: `Bearer ${token}` } });
writeFileSync(1, JSON.stringify({ packets, tracks: tracks.length, deleted: ended.status }) + "\n");
await pc.close();
process.exit(0);
