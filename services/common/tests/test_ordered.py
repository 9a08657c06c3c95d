"""Streams are read in order, each message once, whatever happens to the server."""

import asyncio

import pytest
from mrtc_common import subjects
from mrtc_common.nats import NatsLink
from mrtc_common.ordered import OrderedReader
from mrtc_common.testing import NatsServer, wait_until

pytestmark = pytest.mark.integration

SUBJECT = subjects.message_subject(subjects.room_key("app", "room"))
OTHER = subjects.message_subject(subjects.room_key("app", "other"))


def _reader(link: NatsLink, start: int | None = None) -> OrderedReader:
    return OrderedReader(link, subjects.STREAM_MESSAGES, SUBJECT, start_sequence=start)


async def _send(link: NatsLink, *texts: str) -> list[int]:
    return [await link.publish_stored(SUBJECT, text.encode(), message_id=text) for text in texts]


async def _take(reader: OrderedReader, count: int) -> list[str]:
    async with asyncio.timeout(15):
        return [(await anext(reader)).payload.decode() for _ in range(count)]


async def test_reading_begins_where_asked(nats_link: NatsLink) -> None:
    sequences = await _send(nats_link, "a", "b", "c")
    await nats_link.publish_stored(OTHER, b"x")
    async with _reader(nats_link, sequences[1]) as reader:
        assert await _take(reader, 2) == ["b", "c"]


async def test_without_a_start_only_new_messages_are_read(nats_link: NatsLink) -> None:
    await _send(nats_link, "old")
    async with _reader(nats_link) as reader:
        await reader.wait_open()
        await _send(nats_link, "new")
        assert await _take(reader, 1) == ["new"]


async def test_a_message_sent_twice_is_stored_once(nats_link: NatsLink) -> None:
    first, again = await _send(nats_link, "a", "a")
    assert first == again
    await _send(nats_link, "b")
    async with _reader(nats_link, 1) as reader:
        assert await _take(reader, 2) == ["a", "b"]


async def test_a_killed_server_costs_no_message_and_doubles_none(nats_link: NatsLink, nats_server: NatsServer) -> None:
    await _send(nats_link, "a", "b")
    async with _reader(nats_link, 1) as reader:
        assert await _take(reader, 2) == ["a", "b"]
        nats_server.kill()
        await wait_until(lambda: not nats_link.is_ready)
        nats_server.start()
        await nats_link.wait_ready(15)
        await _send(nats_link, "c", "d")
        assert await _take(reader, 2) == ["c", "d"]


async def test_a_slow_reader_gets_everything_in_order(nats_link: NatsLink) -> None:
    texts = [str(n) for n in range(4000)]
    async with _reader(nats_link, 1) as reader:
        await asyncio.gather(*(_send(nats_link, *texts[n::8]) for n in range(8)))
        async with asyncio.timeout(30):
            messages = [await anext(reader) for _ in texts]
    assert sorted(message.payload.decode() for message in messages) == sorted(texts)
    sequences = [message.sequence for message in messages]
    assert sequences == sorted(sequences)
