"""The list of a large room's people."""

from __future__ import annotations

from mrtc.common.v1 import common_pb2 as common
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_sdk.room import Room, RoomOptions


def person(name: str, shown_as: str = "") -> common.Participant:
    return common.Participant(id=name, identity=name, name=shown_as)


async def test_batches_are_told_as_single_events() -> None:
    """What is known already is no news; after too long a silence whoever is not named has left."""
    room = Room(RoomOptions())
    room.local = person("me")
    room.participants = {"me": room.local, "bob": person("bob")}
    told: list[tuple[str, str]] = []

    async def take(**fields: object) -> None:
        await room._on_push(pb.ServerFrame(participants_changed=pb.ParticipantsChanged(**fields)))
        while not room._events.empty():
            name, value = await room.next_event()
            told.append((name, str(getattr(value, "id", "") or getattr(value, "participant_id", value))))

    await take(participants=[person("bob"), person("carol"), person("dave")], unlisted_count=7)
    await take(
        participants=[person("dave", "Dave")], left=[pb.ParticipantLeft(participant_id="nobody")], unlisted_count=7
    )
    assert told == [
        ("participant_joined", "carol"),
        ("participant_joined", "dave"),
        ("unlisted_count", "7"),
        ("participant_updated", "dave"),
    ]
    assert (room.participant_count, room.participants["dave"].name) == (11, "Dave")
    told.clear()
    await take(participants=[person("dave", "Dave"), person("erin")], is_complete=True)
    assert told[0] == ("participant_joined", "erin")
    assert sorted(told[1:]) == [("participant_left", "bob"), ("participant_left", "carol"), ("unlisted_count", "0")]
    assert set(room.participants) == {"me", "dave", "erin"}
