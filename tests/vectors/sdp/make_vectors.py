"""Writes offers of real clients into this folder: Chromium (headless, by Playwright) and aiortc.

Run it when a client changes: `python tests/vectors/sdp/make_vectors.py`. Addresses and secrets in the files are those
of throw-away peers that never connected.
"""

import asyncio
import os
from pathlib import Path

from aiortc import RTCPeerConnection
from playwright.async_api import async_playwright

HERE = Path(__file__).parent
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")

SIMULCAST = """
const ac = new AudioContext(); const audio = ac.createMediaStreamDestination().stream.getAudioTracks()[0];
const canvas = document.createElement('canvas'); canvas.width = 640; canvas.height = 360; canvas.getContext('2d');
const video = canvas.captureStream(5).getVideoTracks()[0];
const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
pc.addTransceiver(audio, {direction: 'sendonly'});
pc.addTransceiver(video, {direction: 'sendonly', sendEncodings: [
  {rid: 'q', scaleResolutionDownBy: 4}, {rid: 'h', scaleResolutionDownBy: 2}, {rid: 'f'}]});
"""
CASES = {
    "chromium_simulcast_and_slots": SIMULCAST
    + """
for (let i = 0; i < 4; i++) pc.addTransceiver('audio', {direction: 'recvonly'});
for (let i = 0; i < 8; i++) pc.addTransceiver('video', {direction: 'recvonly'});
await pc.setLocalDescription(); return [pc.localDescription.sdp];
""",
    "chromium_data_channel_and_sendrecv": """
const pc = new RTCPeerConnection();
pc.createDataChannel('chat'); pc.addTransceiver('audio'); pc.addTransceiver('video');
await pc.setLocalDescription(); return [pc.localDescription.sdp];
""",
    "chromium_whep": """
const pc = new RTCPeerConnection();
pc.addTransceiver('audio', {direction: 'recvonly'}); pc.addTransceiver('video', {direction: 'recvonly'});
await pc.setLocalDescription(); return [pc.localDescription.sdp];
""",
    "chromium_h264_only": """
const pc = new RTCPeerConnection();
const t = pc.addTransceiver('video', {direction: 'recvonly'});
t.setCodecPreferences(RTCRtpReceiver.getCapabilities('video').codecs.filter(c => /H264|rtx/i.test(c.mimeType)));
await pc.setLocalDescription(); return [pc.localDescription.sdp];
""",
}


async def chromium() -> None:
    """Writes what Chromium offers."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        for name, script in CASES.items():
            offers = await page.evaluate(f"async () => {{ {script} }}")
            (HERE / f"{name}.sdp").write_text(offers[0], newline="")
        await browser.close()


async def aiortc() -> None:
    """Writes what aiortc offers."""
    for name, direction in (("aiortc_publish", "sendonly"), ("aiortc_play", "recvonly"), ("aiortc_both", "sendrecv")):
        pc = RTCPeerConnection()
        pc.addTransceiver("audio", direction=direction)
        pc.addTransceiver("video", direction=direction)
        await pc.setLocalDescription(await pc.createOffer())
        (HERE / f"{name}.sdp").write_text(pc.localDescription.sdp, newline="")
        await pc.close()


async def main() -> None:
    """Writes all of them."""
    await chromium()
    await aiortc()


if __name__ == "__main__":
    asyncio.run(main())
