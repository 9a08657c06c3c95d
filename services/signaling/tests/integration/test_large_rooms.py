"""A storm of joins into one room through two instances."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from mrtc.common.v1 import common_pb2 as common
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common.testing import wait_until
from mrtc_signaling.testing import Client, offer

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration

PEOPLE = 300
PUBLISHERS = 2
AT_ONCE = 8


def camera() -> pb.NewPublication:
    track = pb.NewTrack(kind=common.TRACK_KIND_VIDEO, source=common.TRACK_SOURCE_CAMERA, mid="0")
    return pb.NewPublication(cid="cam", tag="cam", tracks=[track])


async def storm(world: World, people: int, **options: object) -> list[Client]:
    """All join, the last ones publish; one in the middle is of an older version."""
    await world.add_service(**options)
    clients = [world.client(number % 2) for number in range(people)]
    tokens = [await world.token(f"u{number}") for number in range(people)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def join(number: int) -> None:
        fields: dict[str, object] = {"takes_participants_changed": number != people // 2}
        if number >= people - PUBLISHERS:
            fields |= {"offer": offer(["video send"]), "publications": [camera()]}
        async with gate:
            await clients[number].join(tokens[number], **fields)

    await asyncio.gather(*(join(number) for number in range(people)))
    return clients


def listed(client: Client) -> tuple[set[str], int]:
    """Whom a client lists, and how many it knows of besides."""
    people = {one.id: one.identity for one in client.joined.snapshot.participants}
    unlisted = client.joined.snapshot.unlisted_count
    for frame in client.pushes:
        match frame.WhichOneof("body"):
            case "participant_joined":
                people[frame.participant_joined.participant.id] = frame.participant_joined.participant.identity
            case "participant_left":
                people.pop(frame.participant_left.participant_id, None)
            case "participants_changed":
                changes = frame.participants_changed
                people |= {one.id: one.identity for one in changes.participants}
                for left in changes.left:
                    people.pop(left.participant_id, None)
                unlisted = changes.unlisted_count
    return set(people.values()), unlisted


def entries(client: Client) -> int:
    """How many participants it was told of by pushes, one by one or together."""
    batches = [frame.participants_changed for frame in client.pushes if frame.HasField("participants_changed")]
    return client.kinds().count("participant_joined") + sum(len(b.participants) + len(b.left) for b in batches)


async def test_everybody_is_listed_by_few_messages(world: World) -> None:
    """All lists are right in the end; each client is told of each other once, in a few messages."""
    began = time.monotonic()
    clients = await storm(world, PEOPLE)
    everybody = {f"u{number}" for number in range(PEOPLE)}
    await wait_until(lambda: all(listed(client) == (everybody, 0) for client in clients), timeout_s=60, interval_s=0.25)
    elapsed = time.monotonic() - began
    former = clients[PEOPLE // 2]
    clients.remove(former)
    assert "participants_changed" not in former.kinds()
    assert entries(former) == PEOPLE - len(former.joined.snapshot.participants)
    # One by one until the room is large, and who publishes; then a message in a tenth of a second or more.
    windows = elapsed / 0.1 + 1
    for client in clients:
        assert entries(client) <= PEOPLE
        assert client.kinds().count("participant_joined") <= 20 + PUBLISHERS
        assert client.kinds().count("participants_changed") <= windows
    # Everybody leaves the room in a storm too.
    gone = clients[: PEOPLE // 2]
    for client in gone:
        await client.request(leave=pb.LeaveRequest())
    rest = everybody - {client.joined.participant.identity for client in gone}
    await wait_until(
        lambda: all(listed(client) == (rest, 0) for client in clients[PEOPLE // 2 :]), timeout_s=60, interval_s=0.25
    )
    await wait_until(lambda: former.kinds().count("participant_left") == len(gone))


async def test_beyond_a_number_they_are_counted(world: World) -> None:
    """What a client is told, in messages and bytes, does not grow with those who only listen."""
    people = 120
    await world.services.pop().aclose()
    await world.add_service(max_listed_listeners=25)
    clients = await storm(world, people, max_listed_listeners=25)
    clients.pop(people // 2)
    counted = people - PUBLISHERS - 25

    def is_right(client: Client) -> bool:
        names, unlisted = listed(client)
        is_extra = len(names) - PUBLISHERS - 25
        publishers = {f"u{people - 1 - number}" for number in range(PUBLISHERS)}
        return is_extra in (0, 1) and unlisted == counted - is_extra and publishers <= names

    await wait_until(lambda: all(is_right(client) for client in clients), timeout_s=60, interval_s=0.25)
    for client in clients:
        assert entries(client) <= 2 * (25 + PUBLISHERS)
        told = sum(frame.ByteSize() for frame in client.pushes) + client.joined.snapshot.ByteSize()
        assert told < 25 * 400
