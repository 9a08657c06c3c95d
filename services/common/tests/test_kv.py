"""KV tables and watches against a real nats-server."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import cast

import pytest
from mrtc.node.v1.master_service_pb2 import Node
from mrtc.recorder.v1.recording_pb2 import Recording
from mrtc_common import subjects
from mrtc_common.kv import Change, KeyExistsError, KvTable, RevisionMismatchError, SnapshotDone, Unchanged, Watch
from mrtc_common.nats import NatsLink, NatsOptions
from mrtc_common.nats_schema import RECORDING_MAX_BYTES, bucket_stream
from mrtc_common.ordered import ConsumerLostError, OrderedConsumer, StoredMessage
from mrtc_common.tasks import end_tasks
from mrtc_common.testing import NatsServer, wait_until
from structlog.testing import capture_logs

pytestmark = pytest.mark.integration


def _table(link: NatsLink) -> KvTable[Node]:
    return KvTable(link, subjects.BUCKET_ROOMS, Node)


async def _until_done(watch: Watch[Node]) -> list[Change[Node]]:
    changes = []
    async with asyncio.timeout(15):
        async for item in watch:
            if isinstance(item, SnapshotDone):
                return changes
            assert isinstance(item, Change)
            changes.append(item)
    raise AssertionError


async def _next_change(watch: Watch[Node]) -> Change[Node]:
    async with asyncio.timeout(15):
        item = await anext(watch)
        assert isinstance(item, Change)
        return item


async def test_a_value_is_read_as_written(nats_link: NatsLink) -> None:
    table = _table(nats_link)
    assert await table.get("a") is None
    revision = await table.put("a", Node(id="1"))
    entry = await table.get("a")
    assert entry is not None
    assert (entry.value.id, entry.revision) == ("1", revision)


async def test_create_refuses_an_existing_key_and_takes_a_deleted_one(nats_link: NatsLink) -> None:
    table = _table(nats_link)
    await table.create("a", Node(id="1"))
    with pytest.raises(KeyExistsError):
        await table.create("a", Node(id="2"))
    await table.delete("a")
    assert await table.get("a") is None
    await table.create("a", Node(id="3"))
    entry = await table.get("a")
    assert entry is not None
    assert entry.value.id == "3"


async def test_only_one_of_many_creators_wins(nats_link: NatsLink) -> None:
    table = _table(nats_link)
    await table.create("a", Node(id="x"))
    await table.delete("a")
    results = await asyncio.gather(*(table.create("a", Node(id=str(n))) for n in range(8)), return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert all(isinstance(result, int | KeyExistsError) for result in results)


async def test_update_and_delete_need_the_newest_revision(nats_link: NatsLink) -> None:
    table = _table(nats_link)
    first = await table.create("a", Node(id="1"))
    second = await table.update("a", Node(id="2"), first)
    with pytest.raises(RevisionMismatchError):
        await table.update("a", Node(id="3"), first)
    with pytest.raises(RevisionMismatchError):
        await table.delete("a", revision=first)
    await table.delete("a", revision=second)
    assert await table.get("a") is None


async def test_list_gives_what_matches_and_exists(nats_link: NatsLink) -> None:
    table = _table(nats_link)
    for key in ("r1.a", "r1.b", "r2.a"):
        await table.put(key, Node(id=key))
    await table.delete("r1.b")
    assert {entry.key for entry in await table.list("r1.>")} == {"r1.a"}
    assert {entry.key for entry in await table.list()} == {"r1.a", "r2.a"}
    assert await table.list("r9.>") == []


async def test_a_watch_tells_what_exists_then_what_changes(nats_link: NatsLink) -> None:
    table = _table(nats_link)
    await table.put("r.a", Node(id="1"))
    await table.put("other.a", Node(id="no"))
    async with table.watch("r.>") as watch:
        assert [(c.key, c.value.id if c.value else None) for c in await _until_done(watch)] == [("r.a", "1")]
        await table.put("r.b", Node(id="2"))
        await table.delete("r.a", final=Node(id="bye"))
        change = await _next_change(watch)
        assert change.key == "r.b"
        change = await _next_change(watch)
        assert (change.key, change.value, change.final) == ("r.a", None, Node(id="bye"))


async def test_a_watch_reaches_every_revision(nats_link: NatsLink) -> None:
    """Also those that tell nothing: whoever waits for what the server says is the newest does not wait for ever."""
    table = _table(nats_link)
    assert await table.last_revision("r.>") == 0
    await table.put("r.a", Node(id="1"))
    await table.put("other.a", Node(id="no"))
    async with table.watch("r.>") as watch:
        await _next_change(watch)
        assert await anext(watch) == SnapshotDone(is_resync=False, revision=await table.last_revision("r.>"))
        await table.delete("r.a")
        assert (await _next_change(watch)).revision == await table.last_revision("r.>")
        await table.delete("r.a")
        await table.put("other.a", Node(id="still no"))
        async with asyncio.timeout(15):
            assert await anext(watch) == Unchanged(await table.last_revision("r.>"))


async def test_a_key_that_went_meanwhile_does_not_take_the_revision_back(nats_link: NatsLink) -> None:
    """The end of a snapshot names the newest revision, whatever was found missing."""
    watch = _table(nats_link).watch("r.>")
    watch._told["r.gone"] = (3, 0)
    await watch._finish_snapshot(set(), 7)
    assert await _next_change(watch) == Change("r.gone", None, 3, is_inferred=True)
    assert await anext(watch) == SnapshotDone(is_resync=False, revision=7)


async def test_a_watch_of_nothing_is_done_at_once(nats_link: NatsLink) -> None:
    async with _table(nats_link).watch("none.>") as watch:
        assert await _until_done(watch) == []


async def test_a_watch_tells_expired_keys(nats_link: NatsLink) -> None:
    table = KvTable(nats_link, subjects.BUCKET_NODES, Node)
    stream = "KV_" + subjects.BUCKET_NODES
    config = (await nats_link.jetstream.stream_info(stream)).config
    await nats_link.jetstream.update_stream(config.evolve(max_age=2.0, duplicate_window=2.0))
    async with table.watch() as watch:
        await _until_done(watch)
        await table.put("n", Node(id="n"))
        assert (await _next_change(watch)).value is not None
        assert (await _next_change(watch)).value is None


@pytest.mark.parametrize("wiped", [False, True])
async def test_a_watch_survives_a_killed_server(nats_link: NatsLink, nats_server: NatsServer, wiped: bool) -> None:
    table = _table(nats_link)
    await table.put("r.stays", Node(id="1"))
    await table.put("r.goes", Node(id="2"))
    async with table.watch("r.>") as watch:
        assert len(await _until_done(watch)) == 2
        nats_server.kill()
        await wait_until(lambda: not nats_link.is_ready)
        if wiped:
            nats_server.wipe()
        nats_server.start()
        await nats_link.wait_ready(15)
        if wiped:
            await table.put("r.stays", Node(id="1b"))
        else:
            await table.delete("r.goes")
        await table.put("r.new", Node(id="3"))
        known = {"r.stays": "1", "r.goes": "2"}

        async def follow() -> None:
            async for item in watch:
                if isinstance(item, Change):
                    if item.value is None:
                        del known[item.key]
                    else:
                        known[item.key] = item.value.id

        task = asyncio.create_task(follow())
        await wait_until(lambda: known == {"r.stays": "1b" if wiped else "1", "r.new": "3"}, timeout_s=20)
        task.cancel()


async def test_many_changes_come_in_order_and_complete(nats_link: NatsLink) -> None:
    table = _table(nats_link)
    async with table.watch("r.>") as watch:
        await _until_done(watch)
        await asyncio.gather(*(table.put(f"r.{n}", Node(id=str(n))) for n in range(3000)))
        revisions = [(await _next_change(watch)).revision for _ in range(3000)]
        assert revisions == sorted(revisions)


@pytest.mark.parametrize("count", [1, 6])
async def test_a_key_that_is_written_all_the_time_is_in_every_list(nats_link: NatsLink, count: int) -> None:
    """Its old value vanishes while the list is read, and the new one comes at the end."""
    table = _table(nats_link)
    keys = [f"r.{number}" for number in range(count)]
    for key in keys:
        await table.put(key, Node(id=key))

    async def write() -> None:
        number = 0
        while True:
            number += 1
            await table.put(keys[number % len(keys)], Node(id=str(number)))

    writer = asyncio.create_task(write())
    try:
        for _ in range(100):
            assert {entry.key for entry in await table.list()} == set(keys)
    finally:
        await end_tasks(writer)


@pytest.mark.parametrize("count", [1, 6])
async def test_a_list_is_whole_whatever_the_server_counted(
    nats_link: NatsLink, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Not in its count is a key that is written at that very moment: the old value is gone, the new one to come."""
    monkeypatch.setattr(OrderedConsumer, "initial_pending", property(lambda self: self._initial - 1))
    table = _table(nats_link)
    keys = [f"r.{number}" for number in range(count)]
    for key in keys:
        await table.put(key, Node(id=key))
    assert sorted(entry.key for entry in await table.list()) == keys
    assert await table.count("r.*") == count
    assert await table.count("s.*") == 0


async def test_lists_leave_no_consumers_behind(nats_link: NatsLink) -> None:
    """The server would keep each for seconds more."""
    table = _table(nats_link)
    await table.put("r.a", Node(id="a"))
    for _ in range(50):
        await table.list()

    async def consumers() -> int:
        return int((await nats_link.jetstream.stream_info(bucket_stream(subjects.BUCKET_ROOMS))).state.consumer_count)

    async def is_clean() -> bool:
        return await consumers() == 0

    await wait_until(is_clean, timeout_s=2)


async def test_more_rooms_are_watched_than_a_stream_has_consumers_by_default(nats_link: NatsLink) -> None:
    """nats-server 2.15 gives a stream a thousand if it says nothing; also one that was made when it did not."""
    stream = bucket_stream(subjects.BUCKET_ROOMS)
    former = (await nats_link.jetstream.stream_info(stream)).config
    await nats_link.jetstream.update_stream(replace(former, max_consumers=-1))
    other = NatsLink(NatsOptions(urls=(nats_link.client.connected_url.geturl(),)), name="other")
    async with other:
        await other.wait_ready(10)
    table = _table(nats_link)
    async with AsyncExitStack() as stack:
        for number in range(1100):
            watch = await stack.enter_async_context(table.watch(f"r{number}.>"))
            assert isinstance(await anext(watch), SnapshotDone)


async def test_a_watch_that_is_refused_says_so_once_and_tries_on(nats_link: NatsLink) -> None:
    stream = bucket_stream(subjects.BUCKET_ROOMS)
    former = (await nats_link.jetstream.stream_info(stream)).config
    await nats_link.jetstream.update_stream(replace(former, max_consumers=1))
    table = _table(nats_link)
    async with table.watch("r1.>") as first:
        await _until_done(first)
        with capture_logs() as logs:
            async with table.watch("r2.>") as second:
                await wait_until(lambda: logs)
                await nats_link.jetstream.update_stream(former)
                await _until_done(second)
    assert [(log["log_level"], log["reader"]) for log in logs] == [("warning", "$KV.mrtc_rooms.r2.>")]


class _Scripted:
    """A consumer that says what it is told to, and is lost then."""

    def __init__(self, *messages: tuple[str, int, int]) -> None:
        self.initial_pending = messages[0][2] + 1
        self._messages = [StoredMessage(key, str(at).encode(), {}, at, pending, 0) for key, at, pending in messages]

    async def next(self) -> StoredMessage:
        if not self._messages:
            raise ConsumerLostError
        return self._messages.pop(0)


async def test_a_key_written_while_a_watch_begins_anew_is_not_taken_for_gone() -> None:
    """`b` is written anew, and so comes behind the new key `c`; `d` comes so late that it has to be asked for."""

    async def exists(key: str) -> bool:
        return key == "d"

    def decode(_key: str, payload: bytes) -> Node:
        return Node(id=payload.decode())

    watch = Watch(cast(NatsLink, None), "", "", ">", decode, exists)
    for consumer in (
        _Scripted(("a", 1, 4), ("b", 2, 3), ("d", 3, 2), ("e", 4, 1), ("f", 5, 0)),
        _Scripted(("a", 1, 3), ("c", 6, 2), ("b", 7, 1), ("f", 5, 0)),
    ):
        with pytest.raises(ConsumerLostError):
            await watch._follow(cast(OrderedConsumer, consumer))
    told = [await anext(watch) for _ in range(10)]
    assert [(item.key, item.value and item.value.id) for item in told if isinstance(item, Change)] == [
        *zip("abdef", "12345", strict=True),
        ("c", "6"),
        ("b", "7"),
        ("e", None),
    ]


async def test_a_watch_that_begins_anew_while_keys_are_written_takes_none_for_gone(
    nats_link: NatsLink, nats_server: NatsServer
) -> None:
    """NATS comes back and everybody writes at once: no key that exists is told as gone, the newest value is told."""
    table = _table(nats_link)
    keys = [f"r.{number}" for number in range(300)]
    for key in keys:
        await table.put(key, Node(id="0"))
    told: dict[str, str] = {}
    gone: list[str] = []

    async def follow(watch: Watch[Node]) -> None:
        async for item in watch:
            if isinstance(item, Change):
                if item.value is None:
                    gone.append(item.key)
                else:
                    told[item.key] = item.value.id

    async with table.watch("r.>") as watch:
        follower = asyncio.create_task(follow(watch))
        await wait_until(lambda: len(told) == len(keys), what="all keys")
        for turn in range(1, 5):
            epoch = nats_link.epoch
            nats_server.kill()
            nats_server.start()
            await wait_until(lambda epoch=epoch: nats_link.epoch > epoch and nats_link.is_ready, what="the link")
            new = [f"r.new-{turn}-{number}" for number in range(100)]
            rewritten = keys[::2] + new + keys[1::2]
            await asyncio.gather(*(table.put(key, Node(id=str(turn))) for key in rewritten))
            keys = keys + new
            await wait_until(lambda turn=turn, keys=keys: _newest(told, keys, turn), what="all again")
        follower.cancel()
    assert gone == []


def _newest(told: dict[str, str], keys: list[str], turn: int) -> bool:
    return all(told.get(key) == str(turn) for key in keys)


async def test_a_recording_of_thousands_of_files_has_a_record(nats_link: NatsLink) -> None:
    """The server takes it, and it is read and watched as any other."""
    table = KvTable(nats_link, subjects.BUCKET_RECORDINGS, Recording)
    record = Recording(id="rec", app_id="app")
    for number in range(RECORDING_MAX_BYTES // 120):
        record.files.add(key=f"{number:0100}", duration_ms=number + 1_000_000)
    assert RECORDING_MAX_BYTES * 0.8 < record.ByteSize() < RECORDING_MAX_BYTES
    key = subjects.recording_key(subjects.room_key("app", "room"), "rec")
    await table.create(key, record)
    found = await table.get(key)
    assert found is not None
    assert found.value == record
