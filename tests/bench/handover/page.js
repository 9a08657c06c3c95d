// A client in a page: sends a canvas and a tone, receives a picture, and notes when it was shown anew (Unix ms).
window.mover = (() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
  const drawing = canvas.getContext("2d");
  let n = 0;
  setInterval(() => {
    drawing.fillStyle = "#20c040";
    drawing.fillRect(0, 0, 320, 240);
    drawing.fillStyle = "white";
    drawing.fillRect((n++ * 7) % 300, 40, 20, 80);
  }, 33);
  const context = new AudioContext();
  const tone = context.createOscillator();
  const sound = context.createMediaStreamDestination();
  tone.connect(sound);
  tone.start();
  const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  pc.addTransceiver(sound.stream.getAudioTracks()[0], { direction: "sendonly" });
  pc.addTransceiver(canvas.captureStream(30).getVideoTracks()[0], { direction: "sendonly" });
  const { receiver } = pc.addTransceiver("video", { direction: "recvonly" });
  const video = document.createElement("video");
  video.muted = true;
  video.srcObject = new MediaStream([receiver.track]);
  document.body.append(video);
  void video.play();
  const seen = [];
  const note = () => {
    seen.push(Date.now());
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
  return {
    pc,
    seen,
    async offer(iceRestart) {
      await pc.setLocalDescription(await pc.createOffer({ iceRestart }));
      return pc.localDescription.sdp;
    },
    answer: (sdp) => pc.setRemoteDescription({ type: "answer", sdp }),
  };
})();
