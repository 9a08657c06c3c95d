"""Large rooms: what clients are told of those who only listen, and how often."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from mrtc.common.v1 import common_pb2 as common
from mrtc.event.v1 import state_pb2
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common import subjects
from mrtc_common.clock import ManualClock
from mrtc_common.testing.virtual_time import in_virtual_time
from mrtc_signaling.app.room_hub import RoomHub
from mrtc_signaling.core.outbox import Outbox
from mrtc_signaling.core.pushes import push_for, snapshot
from mrtc_signaling.core.room_view import Event, ParticipantChange, PublicationChange
from mrtc_signaling.core.roster import MAX_GONE, RosterOptions

A_MOMENT = 0.001
SMALL = RosterOptions(batch_above=3, max_listeners=4)


class Client:
    """Somebody in the room: keeps its list as an SDK does.

    Attributes:
        frames: what it was sent.
        people: whom it lists, with their names.
    """

    def __init__(self, hub: RoomHub, name: str, *, takes_batches: bool = True) -> None:
        self.hub, self.name, self.takes_batches = hub, name, takes_batches
        self.frames: list[pb.ServerFrame] = []
        self.people: dict[str, str] = {}
        self.unlisted = 0
        self._outbox = Outbox(max_waiting=1 << 20, max_unacked=1 << 20)
        self._version = 0

    def enter(self) -> None:
        """Joins or resumes: gets the snapshot, and all that comes after it."""
        own = self.hub.view.participants.get(self.name) or person(self.name)
        taken = snapshot(
            self.hub.view,
            room="r",
            own=own,
            own_publications=(),
            slots=(),
            last_message_seq=0,
            roster=self.hub.roster if self.takes_batches else None,
        )
        self._version = self.hub.roster.head
        self._outbox = Outbox(max_waiting=1 << 20, max_unacked=1 << 20)
        self.people = {one.id: one.name for one in taken.participants}
        self.unlisted = taken.unlisted_count
        self.hub.enter(self.name, self)

    def on_event(self, event: Event) -> None:
        frame = push_for(event, self.hub.view, self.name)
        if frame is not None:
            self._outbox.push(frame)

    def on_batch(self) -> None:
        self._outbox.push_newest("participants_changed", self._changes)

    def on_nodes(self) -> None: ...

    def on_speakers(self, speakers: object) -> None: ...

    def on_message(self, seq: int, message: object) -> None: ...

    def _changes(self) -> pb.ServerFrame | None:
        message, self._version = self.hub.roster.changes(self._version, self.name)
        return pb.ServerFrame(participants_changed=message) if message is not None else None

    def read(self) -> None:
        """Its socket takes what waits."""
        while (frame := self._outbox.pop()) is not None:
            self.frames.append(frame)
            self._take(frame)

    def kinds(self) -> list[str | None]:
        """Kinds of all that it was sent."""
        return [frame.WhichOneof("body") for frame in self.frames]

    def _take(self, frame: pb.ServerFrame) -> None:
        match frame.WhichOneof("body"):
            case "participant_joined" | "participant_updated" as kind:
                one = getattr(frame, kind).participant
                self.people[one.id] = one.name
            case "participant_left":
                self.people.pop(frame.participant_left.participant_id, None)
            case "publication_updated":
                assert frame.publication_updated.publication.participant_id in self.people, "a publisher nobody knows"
            case "participants_changed":
                changes = frame.participants_changed
                if changes.is_complete:
                    self.people = {name: shown for name, shown in self.people.items() if name == self.name}
                self.people |= {one.id: one.name for one in changes.participants}
                for left in changes.left:
                    self.people.pop(left.participant_id, None)
                self.unlisted = changes.unlisted_count


def person(name: str, shown_as: str = "") -> state_pb2.ParticipantRecord:
    return state_pb2.ParticipantRecord(participant=common.Participant(id=name, identity=name, name=shown_as))


def hub_of(clock: ManualClock, options: RosterOptions) -> RoomHub:
    none = cast(Any, None)
    return RoomHub(subjects.room_key("demo", "r"), none, none, none, clock, options)


def join(hub: RoomHub, name: str, shown_as: str = "") -> None:
    hub.apply([ParticipantChange(name, person(name, shown_as))])


def leave(hub: RoomHub, name: str) -> None:
    hub.apply([ParticipantChange(name, None, common.LEAVE_REASON_CLIENT_REQUEST)])


def publish(hub: RoomHub, name: str) -> None:
    made = common.Publication(id=f"pub-{name}", participant_id=name)
    hub.apply([PublicationChange(made.id, state_pb2.PublicationRecord(publication=made, node_id="n1"))])


def test_a_small_room_is_told_at_once() -> None:
    """Nothing waits and nothing comes in batches; the first one too many begins it."""

    async def scenario(clock: ManualClock) -> None:
        hub = hub_of(clock, SMALL)
        client = Client(hub, "p0")
        join(hub, "p0")
        client.enter()
        join(hub, "p1")
        join(hub, "p2")
        join(hub, "p1", "one")
        leave(hub, "p2")
        client.read()
        assert client.kinds() == [
            "participant_joined",
            "participant_joined",
            "participant_updated",
            "participant_left",
        ]
        assert hub.roster.due_at() is None
        for name in ("p2", "p3"):
            join(hub, name)
        await asyncio.sleep(A_MOMENT)
        client.read()
        assert client.kinds()[4:] == ["participant_joined", "participants_changed"]

    in_virtual_time(scenario)


def test_a_storm_of_joins_costs_each_client_a_few_messages() -> None:
    """Three hundred join within three seconds over two instances: everybody lists everybody, by eight messages."""
    people = 300

    async def scenario(clock: ManualClock) -> None:
        hubs = [hub_of(clock, RosterOptions()) for _ in range(2)]
        clients: list[Client] = []
        for number in range(people):
            for hub in hubs:
                join(hub, f"p{number}")
            clients.append(Client(hubs[number % 2], f"p{number}"))
            clients[-1].enter()
            await asyncio.sleep(0.01)
            for client in clients:
                client.read()
        await asyncio.sleep(1)
        for client in clients:
            client.read()
            assert len(client.people) == people
            assert client.unlisted == 0
        batches = [client.kinds().count("participants_changed") for client in clients]
        # The first nineteen others of a small room, then a batch whenever half as much time again has passed.
        assert clients[0].kinds().count("participant_joined") == 19
        assert batches[0] == batches[1] == max(batches) == 8
        told = [sum(len(f.participants_changed.participants) for f in client.frames) for client in clients]
        assert told[0] == people - 20
        # Nobody is told of anybody twice, nor of those who were in the snapshot.
        assert all(count <= people - number for number, count in enumerate(told))
        # One by one, these are the messages of one client alone.
        assert sum(len(client.frames) for client in clients) < 8 * people

    in_virtual_time(scenario)


def test_a_calm_large_room_is_told_at_once() -> None:
    """Batches wait for what comes soon after another change only."""

    async def scenario(clock: ManualClock) -> None:
        hub = hub_of(clock, SMALL)
        client = Client(hub, "p0")
        client.enter()
        for number in range(4):
            join(hub, f"p{number}")
        await asyncio.sleep(10)
        leave(hub, "p3")
        await asyncio.sleep(A_MOMENT)
        client.read()
        assert set(client.people) == {"p0", "p1", "p2"}

    in_virtual_time(scenario)


def test_who_publishes_comes_first() -> None:
    """A publisher is told before the batch that would have brought him, before his publication, and not again."""

    async def scenario(clock: ManualClock) -> None:
        hub = hub_of(clock, RosterOptions(batch_above=3))
        client, former = Client(hub, "p0"), Client(hub, "p1", takes_batches=False)
        for number in range(5):
            join(hub, f"p{number}")
        client.enter()
        former.enter()
        await asyncio.sleep(1)
        join(hub, "p5")
        await asyncio.sleep(A_MOMENT)
        for name in ("p6", "p7"):
            join(hub, name)
        publish(hub, "p7")
        client.read()
        assert client.kinds() == ["participants_changed", "participant_joined", "publication_updated"]
        assert "p6" not in client.people
        await asyncio.sleep(1)
        client.read()
        assert [one.id for one in client.frames[-1].participants_changed.participants] == ["p6"]
        # His end is told at once too.
        leave(hub, "p7")
        client.read()
        assert client.kinds()[-2:] == ["publication_removed", "participant_left"]
        # An older client gets each by itself.
        former.read()
        assert former.kinds().count("participant_joined") == 3

    in_virtual_time(scenario)


def test_more_listeners_than_are_listed_are_counted() -> None:
    """The list stays as long as it may be, the number tells the rest; who publishes is listed beyond it."""

    async def scenario(clock: ManualClock) -> None:
        hub = hub_of(clock, SMALL)
        first, last = Client(hub, "p0"), Client(hub, "p9")
        join(hub, "p0")
        first.enter()
        for number in range(1, 10):
            join(hub, f"p{number}")
        last.enter()
        await asyncio.sleep(1)
        first.read()
        last.read()
        assert (set(first.people), first.unlisted) == ({"p0", "p1", "p2", "p3"}, 6)
        # It knows of itself.
        assert (set(last.people), last.unlisted) == ({"p0", "p1", "p2", "p3", "p9"}, 5)
        publish(hub, "p8")
        leave(hub, "p2")
        await asyncio.sleep(1)
        first.read()
        assert (set(first.people), first.unlisted) == ({"p0", "p1", "p3", "p4", "p8"}, 4)
        assert len(hub.roster) == 9
        # A small room lists everybody.
        for name in ("p1", "p3", "p4", "p5", "p6", "p7"):
            leave(hub, name)
        await asyncio.sleep(1)
        first.read()
        assert (set(first.people), first.unlisted) == ({"p0", "p8", "p9"}, 0)

    in_virtual_time(scenario)


def test_a_client_that_falls_behind_is_told_what_is() -> None:
    """One message, however much happened: what changed, or the whole list when that is too long ago."""

    async def scenario(clock: ManualClock) -> None:
        hub = hub_of(clock, RosterOptions(batch_above=3))
        client = Client(hub, "p0")
        for number in range(5):
            join(hub, f"p{number}")
        client.enter()
        for number in range(50):
            join(hub, f"q{number}")
            leave(hub, f"q{number}")
            await asyncio.sleep(1)
        join(hub, "p9")
        await asyncio.sleep(1)
        client.read()
        changes = client.frames[-1].participants_changed
        assert (len(client.frames), len(changes.participants), len(changes.left)) == (1, 1, 50)
        for number in range(MAX_GONE + 1):
            join(hub, f"r{number}")
            leave(hub, f"r{number}")
        leave(hub, "p3")
        await asyncio.sleep(1)
        client.read()
        changes = client.frames[-1].participants_changed
        assert (len(client.frames), changes.is_complete, len(changes.left)) == (2, True, 0)
        assert set(client.people) == {"p0", "p1", "p2", "p4", "p9"}

    in_virtual_time(scenario)


PEOPLE = st.integers(0, 9).map(lambda number: f"p{number}")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "join", "leave", "publish", "enter", "read"]), PEOPLE),
        st.tuples(st.just("rename"), PEOPLE),
        st.tuples(st.just("wait"), st.sampled_from(["0.01", "0.05", "2"])),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_whatever_happens_all_lists_are_right_in_the_end(steps: list[tuple[str, str]]) -> None:
    """Joins, leaves, names, publications, slow readers and resumes in any order."""

    async def scenario(clock: ManualClock) -> None:
        hub = hub_of(clock, SMALL)
        clients = {f"p{number}": Client(hub, f"p{number}") for number in range(3)}
        for client in clients.values():
            client.enter()
        ids: dict[str, str] = {name: name for name in clients}
        for count, (what, who) in enumerate(steps):
            # Ids are never used again.
            name = ids.setdefault(who, who) if what != "wait" else who
            match what:
                case "join":
                    join(hub, name)
                case "leave" if who not in clients:
                    leave(hub, name)
                    ids[who] = f"{who}-{count}"
                case "rename" if name in hub.view.participants:
                    join(hub, name, f"name {count}")
                case "publish":
                    publish(hub, name)
                case "enter" if who in clients:
                    clients[who].enter()
                case "read" if who in clients:
                    clients[who].read()
                case "wait":
                    await asyncio.sleep(float(who))
        await asyncio.sleep(3)
        listed = {
            name: record.participant.name
            for name, record in hub.view.participants.items()
            if hub.roster.is_listed(name)
        }
        for name, client in clients.items():
            client.read()
            own = {name: client.people[name]} if name in client.people else {}
            assert client.people == listed | own
            assert len(client.people) + client.unlisted == len(hub.roster) + (name not in hub.view.participants)

    in_virtual_time(scenario)
