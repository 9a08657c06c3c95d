"""The log of app events is read from where the store says, whatever became of the reader before."""

from __future__ import annotations

import pytest
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects, tables
from mrtc_common.nats import NatsLink
from mrtc_signaling.adapters.event_log_nats import NatsEventBatch, NatsEventLog
from mrtc_signaling.core.webhooks import LogPosition

pytestmark = pytest.mark.integration


async def _write(link: NatsLink, *rooms: str) -> None:
    for room in rooms:
        record = state_pb2.RoomRecord(created_at_ms=1)
        await tables.rooms(link).put(subjects.room_record_key(subjects.room_key("app", room)), record)


async def _read(log: NatsEventLog, count: int, after: LogPosition | None = None) -> tuple[list[str], LogPosition]:
    """So many events from there on, and where the log goes on."""
    rooms: list[str] = []
    while len(rooms) < count:
        batch = await log.read(after)
        assert isinstance(batch, NatsEventBatch), f"only {rooms}"
        rooms, after = rooms + [event.room for event in batch.events], batch.position
    assert after is not None
    return rooms, after


async def test_a_reader_that_dies_takes_nothing_with_it(nats_link: NatsLink) -> None:
    first, second = NatsEventLog(nats_link), NatsEventLog(nats_link)
    await _write(nats_link, "a", "b")
    assert (await _read(first, 2))[0] == ["a", "b"]
    await _write(nats_link, "c")
    rooms, position = await _read(second, 3)
    assert rooms == ["a", "b", "c"]
    await _write(nats_link, "d")
    assert (await _read(first, 1, position))[0] == ["d"]
    assert (await _read(second, 1, position))[0] == ["d"]
    # What could not be stored is read again.
    assert (await _read(second, 1, position))[0] == ["d"]
    for log in (first, second):
        await log.aclose()


async def test_a_log_that_was_made_anew_is_read_from_its_beginning(nats_link: NatsLink) -> None:
    log = NatsEventLog(nats_link)
    await _write(nats_link, "a")
    rooms, position = await _read(log, 1)
    assert rooms == ["a"]
    former = LogPosition("2020-01-01", position.sequence + 1_000)
    assert (await _read(log, 1, former))[0] == ["a"]
    await log.aclose()
