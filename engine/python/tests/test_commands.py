"""AsyncEngine: replies, refusals, limits, shutdown."""

import asyncio
import itertools
import os
import socket
import warnings

import pytest
from mrtc_engine import AsyncEngine, EngineClosed, EngineConfig, EngineError, Event, SourceFrame, Subscription

from . import peers

pytestmark = pytest.mark.integration


async def refusal(awaitable: object) -> str:
    with pytest.raises(EngineError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.code


async def test_a_bad_offer_is_refused_with_its_line(engine: AsyncEngine) -> None:
    """The error has a stable code and says where the offer is wrong."""
    with pytest.raises(EngineError, match="line 2: not of the form") as caught:
        await engine.create_transport(transport="t", room="r", offer="v=0\r\nrubbish\r\n")
    assert caught.value.code == "bad_offer"


async def test_what_does_not_exist_is_told(engine: AsyncEngine) -> None:
    """Each kind of missing thing has its code."""
    assert await refusal(engine.negotiate(transport="no", offer=peers.OFFER)) == "transport_not_found"
    assert await refusal(engine.publish_track(track="t", transport="no", mid="0")) == "transport_not_found"
    assert await refusal(engine.set_subscriptions(transport="no", subscriptions=[])) == "transport_not_found"
    assert await refusal(engine.set_track_muted(track="no", is_muted=True)) == "track_not_found"
    assert await refusal(engine.create_sink(sink="s", track="no")) == "track_not_found"
    assert await refusal(engine.export_track(relay="no", track="no", handle=1)) == "relay_not_found"
    await engine.close_transport(transport="no")
    await engine.unpublish_track(track="no")
    await engine.close_sink(sink="no")
    await engine.close_relay(relay="no")


async def test_an_id_is_used_once(engine: AsyncEngine) -> None:
    """A second transport of the same id is refused; after closing the id is free again."""
    await engine.create_transport(transport="t", room="r", offer=peers.OFFER)
    assert await refusal(engine.create_transport(transport="t", room="r", offer=peers.OFFER)) == "already_exists"
    await engine.close_transport(transport="t")
    await engine.create_transport(transport="t", room="r", offer=peers.OFFER)


async def test_the_number_of_transports_is_limited() -> None:
    """All workers together hold max_transports."""
    async with AsyncEngine(peers.config(workers=2, max_transports=3)) as engine:
        for n in range(3):
            await engine.create_transport(transport=str(n), room=str(n), offer=peers.OFFER)
        assert await refusal(engine.create_transport(transport="x", room="r", offer=peers.OFFER)) == "limit_exceeded"
        await engine.close_transport(transport="0")
        await engine.create_transport(transport="x", room="r", offer=peers.OFFER)


async def test_many_commands_at_once_are_all_answered(engine: AsyncEngine) -> None:
    """Replies find the coroutine that waits for them."""
    names = [f"source-{n}" for n in range(500)]
    made = await asyncio.gather(*(engine.create_source(track=n, room="r", codec="opus") for n in names))
    assert [reply.track for reply in made] == names
    dump = await engine.dump_room(room="r")
    assert dump is not None


async def test_a_cancelled_command_does_not_disturb_others(engine: AsyncEngine) -> None:
    """Its reply is dropped."""
    task = asyncio.create_task(engine.create_source(track="a", room="r", codec="vp8"))
    await asyncio.sleep(0)
    task.cancel()
    assert (await engine.create_source(track="b", room="r", codec="vp8")).track == "b"


async def test_wrong_arguments_are_value_errors(engine: AsyncEngine) -> None:
    """They are told before anything is sent to a worker."""
    with pytest.raises(ValueError, match="codec"):
        await engine.create_source(track="a", room="r", codec="mp3")
    with pytest.raises(ValueError, match="16 bytes"):
        await engine.open_relay(relay="r", remote="1.2.3.4:5", tx_key=b"", tx_salt=b"", rx_key=b"", rx_salt=b"")
    key, salt = bytes(16), bytes(12)
    with pytest.raises(ValueError, match="ip:port"):
        await engine.open_relay(relay="r", remote="host:5", tx_key=key, tx_salt=salt, rx_key=key, rx_salt=salt)
    with pytest.raises(ValueError, match="kind"):
        Subscription(track="t", kind="smell")


@pytest.mark.parametrize(
    "settings",
    [
        {"advertised_ips": []},
        {"advertised_ips": ["example.org"]},
        {"advertised_ips": ["0.0.0.0"]},
        {"bind_ip": "x"},
        {"tcp_port": -2},
        {"udp_port": 65_535, "workers": 2},
        {"log_format": "xml"},
        {"log_filter": "=,="},
    ],
    ids=str,
)
def test_wrong_settings_are_value_errors(settings: dict[str, object]) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=r".+"):
        AsyncEngine(EngineConfig(**{"advertised_ips": ["127.0.0.1"]} | settings))


def test_a_taken_port_is_an_os_error() -> None:
    """It says which address could not be bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        with pytest.raises(OSError, match="cannot bind udp"):
            AsyncEngine(peers.config(workers=1, udp_port=taken.getsockname()[1]))


async def test_workers_have_consecutive_ports() -> None:
    """Worker n takes udp_port + n."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    async with AsyncEngine(peers.config(workers=1, udp_port=port, tcp_port=-1)) as engine:
        assert engine.local_addresses() == [("udp", f"0.0.0.0:{port}")]
        assert engine.relay_address("any") == f"127.0.0.1:{port}"


async def test_closing_ends_everything_that_waits() -> None:
    """Iterators end, commands raise, a second close is harmless."""
    engine = AsyncEngine(peers.config(workers=1))
    await engine.create_source(track="t", room="r", codec="opus")
    await engine.create_sink(sink="s", track="t")
    events, frames = engine.events, engine.frames("s")

    async def drain(iterator: object) -> None:
        async for _ in iterator:  # type: ignore[attr-defined]
            pass

    tasks = [asyncio.create_task(drain(events)), asyncio.create_task(drain(frames))]
    await asyncio.sleep(0)
    await engine.aclose()
    await engine.aclose()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    with pytest.raises(EngineClosed):
        await engine.create_source(track="u", room="r", codec="opus")


def test_an_engine_left_open_warns() -> None:
    """As files do."""
    engine = AsyncEngine(peers.config(workers=1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del engine
    assert [w.category for w in caught] == [ResourceWarning]


async def test_a_forked_child_is_refused() -> None:
    """Its threads stayed in the parent."""
    async with AsyncEngine(peers.config(workers=1)) as engine:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                engine.counters()
            except EngineClosed as error:
                os._exit(0 if "fork" in str(error) else 1)
            os._exit(2)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        await engine.create_source(track="t", room="r", codec="opus")


async def test_figures_have_names(engine: AsyncEngine) -> None:
    """Counters per worker; stats of what exists."""
    await engine.create_transport(transport="t", room="r", offer=peers.OFFER)
    assert await engine.stats() is not None
    await peers.until(lambda: sum(c.get("transports", 0) for c in engine.counters()) == 1, "counters are published")
    assert all("rx_datagrams" in c and "busy_us" in c for c in engine.counters())


async def test_a_source_feeds_a_sink(engine: AsyncEngine) -> None:
    """Frames come out as they went in."""
    await engine.create_source(track="t", room="r", codec="opus")
    await engine.create_sink(sink="s", track="t")
    sent = [bytes([0xFC, n, n, n]) for n in range(25)]
    await engine.push_frames(
        track="t",
        frames=[SourceFrame(pts_us=n * 20_000, is_keyframe=True, data=data) for n, data in enumerate(sent)],
    )
    got = []
    async with asyncio.timeout(peers.DEADLINE_S):
        async for frame in engine.frames("s"):
            got.append(frame)
            if len(got) == len(sent):
                break
    assert [frame.data for frame in got] == sent
    assert {(frame.codec, frame.sink) for frame in got} == {("opus", "s")}
    steps = {b.rtp_time - a.rtp_time for a, b in itertools.pairwise(got)}
    assert steps == {960}


async def test_a_garbage_datagram_changes_nothing(engine: AsyncEngine) -> None:
    """It is counted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for kind, address in engine.local_addresses():
            if kind == "udp":
                for first in (0, 22, 100, 128, 193, 255):
                    client.sendto(bytes([first]) * 50, ("127.0.0.1", int(address.rpartition(":")[2])))
    await peers.until(lambda: sum(c.get("rx_datagrams", 0) for c in engine.counters()) == 12, "all were seen")
    assert (await engine.create_source(track="t", room="r", codec="vp8")).codec == "vp8"


async def test_a_closed_transport_is_told(engine: AsyncEngine) -> None:
    """One event, with the reason."""
    await engine.create_transport(transport="t", room="r", offer=peers.OFFER)
    await engine.close_transport(transport="t")
    async with asyncio.timeout(peers.DEADLINE_S):
        async for event in engine.events:
            if isinstance(event, Event.TransportClosed):
                assert (event.transport, event.reason) == ("t", "closed")
                break
