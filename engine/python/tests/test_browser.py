"""Real Chromium against the engine: it takes the answers, its simulcast arrives, and it decodes what is forwarded."""

import os
from collections.abc import AsyncIterator

import pytest
from mrtc_engine import AsyncEngine, Reply, Subscription
from playwright.async_api import Browser, Page, async_playwright

from . import peers
from .peers import Colour, publisher

pytestmark = [pytest.mark.integration, pytest.mark.browser]

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")

# Chromium sends three layers from 960x540 on.
PUBLISH = """async () => {
  const canvas = document.createElement('canvas'); canvas.width = 1280; canvas.height = 720;
  const drawing = canvas.getContext('2d');
  let n = 0;
  setInterval(() => { drawing.fillStyle = '#20c040'; drawing.fillRect(0, 0, 1280, 720); drawing.fillStyle = 'white';
                      drawing.fillRect((n++ * 7) % 1200, 40, 80, 80); }, 33);
  window.pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  const audio = new AudioContext().createMediaStreamDestination().stream.getAudioTracks()[0];
  pc.addTransceiver(audio, {direction: 'sendonly'});
  pc.addTransceiver(canvas.captureStream(30).getVideoTracks()[0], {direction: 'sendonly', sendEncodings: [
    {rid: 'q', scaleResolutionDownBy: 4}, {rid: 'h', scaleResolutionDownBy: 2}, {rid: 'f'}]});
  pc.createDataChannel('refused');
  await pc.setLocalDescription();
  return pc.localDescription.sdp;
}"""

WATCH = """async (slots) => {
  window.pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  pc.addTransceiver('audio', {direction: 'recvonly'});
  for (let i = 0; i < slots; i++) pc.addTransceiver('video', {direction: 'recvonly'});
  window.video = document.createElement('video'); video.muted = true; document.body.append(video);
  video.srcObject = new MediaStream([pc.getTransceivers()[1].receiver.track]);
  video.play();
  await pc.setLocalDescription();
  return pc.localDescription.sdp;
}"""

ANSWER = "(sdp) => pc.setRemoteDescription({type: 'answer', sdp})"
OFFER_AGAIN = (
    "async (options) => { await pc.setLocalDescription(await pc.createOffer(options)); return pc.localDescription.sdp }"
)
PICTURE = """() => {
  const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
  const drawing = canvas.getContext('2d'); drawing.drawImage(video, 0, 0, 1, 1);
  return [video.videoHeight, ...drawing.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}"""
STATE = "() => pc.connectionState"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        await browser.close()


class Client:
    """A page with one peer connection to the engine."""

    def __init__(self, engine: AsyncEngine, page: Page, name: str) -> None:
        self.engine, self.page, self.name = engine, page, name
        self.value: object = None

    async def connect(self, script: str, argument: object = None) -> Reply.Answer:
        offer = await self.page.evaluate(script, argument)
        answer = await self.engine.create_transport(transport=self.name, room="room", offer=offer)
        await self.page.evaluate(ANSWER, answer.answer)
        await self.until(STATE, lambda state: state == "connected")
        return answer

    async def until(self, script: str, is_right: object) -> object:
        async with peers.asyncio.timeout(peers.DEADLINE_S):
            while not is_right(value := await self.page.evaluate(script)):  # type: ignore[operator]
                await peers.asyncio.sleep(0.05)
        return value


async def subscribe(client: Client, track: str, height: int = 0) -> None:
    wanted = [Subscription(track=track, kind="video", max_height=height)]
    reply = await client.engine.set_subscriptions(transport=client.name, subscriptions=wanted)
    assert (reply.unplaced, reply.no_common_codec, reply.missing) == ([], [], [])


def is_green(picture: list[int]) -> bool:
    return picture[2] > picture[1] + 60 and picture[2] > picture[3] + 60


async def test_simulcast_of_a_browser_is_seen_in_another(engine: AsyncEngine, browser: Browser) -> None:
    """All layers are negotiated; the receiver gets the one that fits."""
    sender = Client(engine, await browser.new_page(), "sender")
    answer = await sender.connect(PUBLISH)
    video = next(line for line in answer.lines if line.kind == "video" and line.is_inbound)
    assert video.rids == ["q", "h", "f"]
    track = await engine.publish_track(track="camera", transport="sender", mid=video.mid)
    assert track.rids == ["q", "h", "f"]
    receiver = Client(engine, await browser.new_page(), "receiver")
    await receiver.connect(WATCH, 4)
    await subscribe(receiver, "camera")
    await receiver.until(PICTURE, lambda p: p[0] == 720 and is_green(p))
    await subscribe(receiver, "camera", height=180)
    await receiver.until(PICTURE, lambda p: p[0] == 180 and is_green(p))
    await subscribe(receiver, "camera")
    await receiver.until(PICTURE, lambda p: p[0] == 720 and is_green(p))


async def test_a_browser_adds_slots_and_restarts_ice(engine: AsyncEngine, browser: Browser) -> None:
    """Later offers are answered on the same transport; the picture goes on."""
    async with publisher(engine, "a", video=Colour((150, 60, 60))) as tracks:
        client = Client(engine, await browser.new_page(), "b")
        await client.connect(WATCH, 1)
        await subscribe(client, tracks["video"])
        await client.until(PICTURE, is_green)
        await client.page.evaluate("() => { pc.addTransceiver('video', {direction: 'recvonly'}) }")
        for options in ({}, {"iceRestart": True}):
            offer = await client.page.evaluate(OFFER_AGAIN, options)
            answer = await engine.negotiate(transport="b", offer=offer)
            assert [line.kind for line in answer.lines] == ["audio", "video", "video"]
            await client.page.evaluate(ANSWER, answer.answer)
            before = await client.page.evaluate("() => video.currentTime")
            await client.until("() => video.currentTime", lambda t, before=before: t > before + 1)
            await client.until(STATE, lambda state: state == "connected")


async def test_a_browser_without_udp_uses_tcp(engine: AsyncEngine, browser: Browser) -> None:
    """The answer's TCP candidate alone is enough."""
    async with publisher(engine, "a", video=Colour((150, 60, 60))) as tracks:
        client = Client(engine, await browser.new_page(), "b")
        offer = await client.page.evaluate(WATCH, 1)
        answer = await engine.create_transport(transport="b", room="room", offer=offer)
        lines = [line for line in answer.answer.split("\r\n") if " udp " not in line]
        await client.page.evaluate(ANSWER, "\r\n".join(lines))
        await client.until(STATE, lambda state: state == "connected")
        await subscribe(client, tracks["video"])
        await client.until(PICTURE, is_green)
        await peers.until(lambda: sum(c.get("tcp_accepted", 0) for c in engine.counters()) == 1, "TCP is counted")


async def test_a_hundred_slots_are_answered(engine: AsyncEngine, browser: Browser) -> None:
    """Chromium's offer of half a megabyte and its answer."""
    client = Client(engine, await browser.new_page(), "b")
    answer = await client.connect(WATCH, 100)
    assert len(answer.lines) == 101


@pytest.mark.parametrize("is_told", [True, False], ids=["restarts ICE", "is called"])
async def test_a_browser_goes_on_at_another_engine(engine: AsyncEngine, browser: Browser, is_told: bool) -> None:
    """Its picture goes on there without a new DTLS handshake, and it hears nothing of the former engine's end."""
    key = bytes(range(32))
    async with (
        AsyncEngine(peers.config(workers=1)) as other,
        publisher(engine, "a", video=Colour((150, 60, 60))) as tracks,
        publisher(other, "c", video=Colour((80, 200, 90))) as others,
    ):
        client = Client(engine, await browser.new_page(), "b")
        await client.connect(WATCH, 1)
        offer = await client.page.evaluate("() => pc.localDescription.sdp")
        await subscribe(client, tracks["video"])
        await client.until(PICTURE, is_green)
        if is_told:
            offer = await client.page.evaluate(OFFER_AGAIN, {"iceRestart": True})
        state = await engine.export_transport(transport="b", purpose="go_on", key=key)
        answer = await other.import_transport(transport="b", room="room", offer=offer, state=state, key=key)
        if is_told:
            await client.page.evaluate(ANSWER, answer.answer)
        client.engine = other
        await subscribe(client, others["video"])
        await client.until(PICTURE, lambda p: p[3] > p[2] + 60)
        await engine.close_transport(transport="b")
        before = await client.page.evaluate("() => video.currentTime")
        await client.until("() => video.currentTime", lambda t: t > before + 1)
        assert await client.page.evaluate(STATE) == "connected"
