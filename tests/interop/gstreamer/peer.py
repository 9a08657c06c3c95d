"""A WHIP publisher and WHEP player on GStreamer's webrtcbin, run by the system's Python (python3-gi).

    peer.py publish URL TOKEN FILE.mkv    sends a file's H.264 and Opus in real time
    peer.py play URL TOKEN OUT.webm OUT.ogg   records VP8 and Opus

Both go on until standard input ends. Prints one line of JSON at its end: buffers by kind, and the status of the DELETE.
"""

import hashlib
import json
import re
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402

PUBLISH = """
webrtcbin name=peer bundle-policy=max-bundle
filesrc location="{file}" ! matroskademux name=file
file. ! queue ! h264parse config-interval=-1 ! video/x-h264,stream-format=avc,alignment=au ! clocksync
  ! rtph264pay name=video pt=96 aggregate-mode=zero-latency ! peer.
file. ! queue ! opusparse ! clocksync ! rtpopuspay name=audio pt=97 ! peer.
"""
PLAY = "webrtcbin name=peer bundle-policy=max-bundle"
# A file each: a common one would be begun by whichever comes first, without the other.
RECORDERS = {
    "video": 'queue ! rtpvp8depay name=video ! webmmux streamable=true ! filesink location="{file}"',
    "audio": 'queue ! rtpopusdepay name=audio ! opusparse ! oggmux ! filesink location="{file}"',
}
RECEIVED = (
    "application/x-rtp,media=video,encoding-name=VP8,clock-rate=90000,payload=96",
    "application/x-rtp,media=audio,encoding-name=OPUS,clock-rate=48000,encoding-params=(string)2,payload=97",
)
TIMEOUT_S = 15
# webrtcbin's own certificate is RSA, and the suite takes elliptic curves only (docs/interop.md).
CERTIFICATE = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=peer -keyout - -out -"


class Peer:
    """One peer connection and the HTTP resource that stands for it."""

    def __init__(self, action, url, token, *files):
        self.url, self.token = url, token
        self.files = dict(zip(("video", "audio"), files, strict=False))
        self.counts = {"video": 0, "audio": 0}
        if action == "publish":
            self.pipeline = Gst.parse_launch(PUBLISH.format(file=files[0]))
        else:
            self.pipeline = Gst.Pipeline.new()
            self.pipeline.add(Gst.parse_launch(PLAY))  # a single element makes no pipeline
        self.rtc = self.pipeline.get_by_name("peer")
        # What a promise gave lives no longer than its reply.
        self.replies = []
        self.gathered = threading.Event()
        self.rtc.connect("notify::ice-gathering-state", self._on_gathering)
        if action == "publish":
            for kind in self.counts:
                self._count(kind, self.pipeline.get_by_name(kind))
        else:
            self.rtc.connect("pad-added", self._on_pad)
        self.is_player = action == "play"

    def run(self):
        """Connects, waits for the end of the input, and takes the resource away."""
        self.pipeline.set_state(Gst.State.PLAYING)
        if self.is_player:
            for caps in RECEIVED:
                direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
                self.rtc.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
        else:
            # Without the caps of all its pads the offer would lack media.
            for kind in self.counts:
                self._wait_for_caps(self.pipeline.get_by_name(kind).get_static_pad("src").get_peer())
        resource = self._exchange()
        sys.stdin.read()
        status, _, _ = self._ask("DELETE", resource)
        self.pipeline.set_state(Gst.State.NULL)
        print(json.dumps({"packets": self.counts, "deleted": status}), flush=True)

    def _exchange(self):
        self._promised("create-offer", None)
        fingerprint = self._use_certificate()
        offer = self._promised("create-offer", None).get_value("offer")
        self._promised("set-local-description", offer)
        if not self.gathered.wait(TIMEOUT_S):
            sys.exit("candidates were not gathered")
        sdp = self.rtc.get_property("local-description").sdp.as_text()
        sdp = re.sub("a=fingerprint:.*", f"a=fingerprint:sha-256 {fingerprint}\r", sdp)
        status, headers, body = self._ask("POST", self.url, sdp.encode())
        if status != 201:
            sys.exit(f"{self.url} answered {status}: {body}")
        _, message = GstSdp.SDPMessage.new_from_text(body)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self._promised("set-remote-description", answer)
        return urllib.parse.urljoin(self.url, headers["location"])

    def _use_certificate(self):
        """Gives the transport, which the first offer made, a new certificate; returns its fingerprint.

        webrtcbin goes on offering that of the certificate that it had.
        """
        pem = subprocess.run(CERTIFICATE.split(), capture_output=True, text=True, check=True).stdout
        elements = self.pipeline.iterate_all_by_element_factory_name("dtlsdec")
        found, element = elements.next()
        if found != Gst.IteratorResult.OK:
            sys.exit("webrtcbin made no transport")
        # It follows the connection that it finds when it becomes ready.
        element.set_state(Gst.State.NULL)
        element.set_property("pem", pem)
        element.sync_state_with_parent()
        der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])
        return hashlib.sha256(der).digest().hex(":").upper()

    def _promised(self, signal, argument):
        promise = Gst.Promise.new()
        self.rtc.emit(signal, argument, promise)
        promise.wait()
        reply = promise.get_reply()
        self.replies.append((promise, reply))
        if reply is not None and reply.has_field("error"):
            sys.exit(f"{signal}: {reply.to_string()}")
        return reply

    def _on_gathering(self, rtc, _):
        if rtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self.gathered.set()

    def _on_pad(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        recorder = Gst.parse_bin_from_description(RECORDERS[kind].format(file=self.files[kind]), True)
        self.pipeline.add(recorder)
        self._count(kind, recorder.get_by_name(kind))
        recorder.sync_state_with_parent()
        pad.link(recorder.get_static_pad("sink"))

    def _count(self, kind, element):
        def seen(_pad, info):
            is_list = info.type & Gst.PadProbeType.BUFFER_LIST
            self.counts[kind] += info.get_buffer_list().length() if is_list else 1
            return Gst.PadProbeReturn.OK

        mask = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST
        element.get_static_pad("src").add_probe(mask, seen)

    def _wait_for_caps(self, pad):
        known = threading.Event()
        pad.connect("notify::caps", lambda *_: known.set())
        if pad.get_current_caps() is None and not known.wait(TIMEOUT_S):
            sys.exit("the file gave nothing")

    def _ask(self, method, url, body=None):
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/sdp"}
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()


if __name__ == "__main__":
    Gst.init(None)
    Peer(*sys.argv[1:]).run()
