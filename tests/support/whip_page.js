// A page without an SDK that publishes by WHIP or plays by WHEP, and notes when it showed a picture (Unix ms).
window.whip = (() => {
  const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  const seen = [];
  let resource, etag, answer, token;

  function film() {
    const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
    const drawing = canvas.getContext("2d");
    let n = 0;
    setInterval(() => {
      drawing.fillStyle = "#20c040";
      drawing.fillRect(0, 0, 320, 240);
      drawing.fillStyle = "white";
      drawing.fillRect((n++ * 7) % 300, 40, 20, 80);
    }, 33);
    return canvas.captureStream(30).getVideoTracks()[0];
  }

  function tone() {
    const context = new AudioContext();
    const source = context.createOscillator();
    const sound = context.createMediaStreamDestination();
    source.connect(sound);
    source.start();
    return sound.stream.getAudioTracks()[0];
  }

  function show() {
    const receivers = ["audio", "video"].map((kind) => pc.addTransceiver(kind, { direction: "recvonly" }).receiver);
    const video = Object.assign(document.createElement("video"), { muted: true });
    video.srcObject = new MediaStream(receivers.map((receiver) => receiver.track));
    document.body.append(video);
    void video.play();
    const note = () => {
      seen.push(Date.now());
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
  }

  async function ask(method, url, body, headers) {
    const response = await fetch(url, { method, body, headers: { authorization: `Bearer ${token}`, ...headers } });
    if (!response.ok) throw new Error(`${method}: ${response.status} ${await response.text()}`);
    etag = response.headers.get("etag") ?? etag;
    return response;
  }

  async function begin(url, bearer) {
    token = bearer;
    if (url.includes("/whip/")) [tone(), film()].forEach((track) => pc.addTransceiver(track, { direction: "sendonly" }));
    else show();
    await pc.setLocalDescription();
    const response = await ask("POST", url, pc.localDescription.sdp, { "content-type": "application/sdp" });
    resource = new URL(response.headers.get("location"), url).href;
    answer = await response.text();
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    return etag;
  }

  // RFC 9725 section 4.3.3: what the fragment says takes the place of what the answer said.
  async function restart() {
    await pc.setLocalDescription(await pc.createOffer({ iceRestart: true }));
    const said = (name) => pc.localDescription.sdp.match(new RegExp(`^a=${name}:.*$`, "m"))[0].trim();
    const body = `${said("ice-ufrag")}\r\n${said("ice-pwd")}\r\n`;
    const headers = { "content-type": "application/trickle-ice-sdpfrag", "if-match": etag };
    const fragment = await (await ask("PATCH", resource, body, headers)).text();
    const told = (name) => fragment.match(new RegExp(`^a=${name}:.*$`, "gm")).map((line) => line.trim());
    answer = answer
      .replace(/^a=candidate:.*\r\n/gm, "")
      .replace(/^a=ice-ufrag:.*$/gm, told("ice-ufrag")[0])
      .replace(/^a=ice-pwd:.*$/gm, told("ice-pwd")[0])
      .replace(/^(a=mid:.*\r\n)/m, `$1${told("candidate").join("\r\n")}\r\n`);
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    return etag;
  }

  return {
    seen,
    begin,
    restart,
    end: async () => (await ask("DELETE", resource)).status,
    resource: () => resource,
    state: () => pc.connectionState,
  };
})();
