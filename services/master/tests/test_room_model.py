"""A model of rooms in virtual time: joins, leaves, moves, deaths, freezes in any order; the real reaper and its store.

The model writes keys in the order in which signaling does (`join.py`, `removal.py`), one step at a time. Whatever
happens, in the end nothing is left without an owner, and nobody who is well has lost anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from mrtc.common.v1.common_pb2 import LEAVE_REASON_CLIENT_REQUEST, Participant, Publication, Track
from mrtc.event.v1.state_pb2 import IdentityRecord, ParticipantRecord, PublicationRecord, RoomRecord, SessionRecord
from mrtc_common import subjects
from mrtc_common.kv import Entry, KeyExistsError, KvTable, RevisionMismatchError
from mrtc_master.adapters.room_store_nats import NatsRoomStore
from mrtc_master.core.reaper import Reaper
from mrtc_master.core.rooms_view import RoomsView

JOIN_TIMEOUT_S = 20.0
GRACE_S, REFRESH_S, EMPTY_S, TICK_S = 30.0, 10.0, 30.0, 0.5
ROOMS = tuple(subjects.room_key("app", name) for name in ("one", "two"))
IDENTITIES = ("ann", "bob", "cleo")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


class MemoryTable:
    """`KvTable` in memory; every change is told to `on_change(key, value or None, revision)`."""

    def __init__(self, on_change: Callable[[str, Any, int], None]) -> None:
        self.entries: dict[str, Entry[Any]] = {}
        self._on_change = on_change
        self._revision = 0

    async def get(self, key: str) -> Entry[Any] | None:
        return self.entries.get(key)

    async def list(self, key_filter: str = ">") -> list[Entry[Any]]:
        wanted = key_filter.split(".")
        return [
            e for k, e in self.entries.items() if all(w in ("*", p) for w, p in zip(wanted, k.split("."), strict=True))
        ]

    async def put(self, key: str, value: Any) -> int:
        self._revision += 1
        self.entries[key] = Entry(key, value, self._revision)
        self._on_change(key, value, self._revision)
        return self._revision

    async def create(self, key: str, value: Any) -> int:
        if key in self.entries:
            raise KeyExistsError
        return await self.put(key, value)

    async def update(self, key: str, value: Any, revision: int) -> int:
        if key not in self.entries or self.entries[key].revision != revision:
            raise RevisionMismatchError
        return await self.put(key, value)

    async def delete(self, key: str, *, revision: int | None = None, final: Any = None) -> None:
        if revision is not None and (key not in self.entries or self.entries[key].revision != revision):
            raise RevisionMismatchError
        self._revision += 1
        if self.entries.pop(key, None) is not None:
            self._on_change(key, None, self._revision)


@dataclass
class Person:
    """A participant and what its instance knows of it."""

    number: int
    room: str
    identity: str
    is_joined: bool = False
    is_leaving: bool = False
    was_harmed: bool = False

    @property
    def id(self) -> str:
        return f"pa_{self.number}"

    @property
    def session(self) -> str:
        return f"se_{self.number}"

    @property
    def publications(self) -> list[str]:
        return [f"pub_{self.number}_{n}" for n in range(2)]


@dataclass
class Instance:
    """A signaling process: what it is doing, and whom it serves."""

    is_frozen: bool = False
    steps: list[Iterator[None]] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    refreshed_at: float = 0.0


class Rooms(RuleBasedStateMachine):
    """The suite's rooms; `settle` at the end of each run checks them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rng = random.Random(0)
        self.expires: dict[str, float] = {}
        self.late: list[Callable[[], None]] = []
        self.is_watch_late = False
        self.rooms = MemoryTable(self._room_changed)
        self.sessions = MemoryTable(self._session_changed)
        self.view = RoomsView()
        self.reaper = Reaper(orphan_grace_s=2.0, claim_grace_s=GRACE_S, empty_timeout_s=EMPTY_S)
        self.store = NatsRoomStore(cast(KvTable[Any], self.rooms), cast(KvTable[Any], self.sessions))
        self.instances = [Instance() for _ in range(3)]
        self.count = 0

    # What happens

    @rule(instance=st.integers(0, 2), room=st.sampled_from(ROOMS), identity=st.sampled_from(IDENTITIES))
    def somebody_joins(self, instance: int, room: str, identity: str) -> None:
        self.count += 1
        person = Person(self.count, room, identity)
        self.instances[instance].people.append(person)
        self.instances[instance].steps.append(self._join(person))

    @rule(choice=st.randoms(use_true_random=False))
    def one_step(self, choice: random.Random) -> None:
        busy = [instance for instance in self.instances if instance.steps and not instance.is_frozen]
        if busy:
            instance = choice.choice(busy)
            self._advance(instance, choice.choice(instance.steps))

    @rule()
    def all_steps(self) -> None:
        for instance in self.instances:
            while instance.steps and not instance.is_frozen:
                self._advance(instance, instance.steps[0])

    @rule(choice=st.randoms(use_true_random=False))
    def somebody_leaves(self, choice: random.Random) -> None:
        instance = choice.choice(self.instances)
        joined = [person for person in instance.people if person.is_joined and not person.is_leaving]
        if joined and not instance.is_frozen:
            self._let_go(instance, choice.choice(joined))

    @rule(choice=st.randoms(use_true_random=False))
    def somebody_moves(self, choice: random.Random) -> None:
        instance = choice.choice(self.instances)
        joined = [person for person in instance.people if person.is_joined and not person.is_leaving]
        if joined and not instance.is_frozen:
            instance.steps.append(self._move(choice.choice(joined)))

    @rule(choice=st.randoms(use_true_random=False))
    def somebody_is_removed_by_api(self, choice: random.Random) -> None:
        keys = [key for key in self.rooms.entries if f".{subjects.RoomEntryKind.PARTICIPANT}." in key]
        if keys:
            key = choice.choice(sorted(keys))
            record = self.rooms.entries[key].value
            for _ in self._remove(subjects.parse_room_entry(key).room_key, record):
                pass
            assert key not in self.rooms.entries, "a forced delete works always"

    @rule(instance=st.integers(0, 2))
    def an_instance_is_killed(self, instance: int) -> None:
        self.instances[instance] = Instance(refreshed_at=self.now)

    @rule(instance=st.integers(0, 2))
    def an_instance_freezes_or_goes_on(self, instance: int) -> None:
        one = self.instances[instance]
        one.is_frozen = not one.is_frozen
        for person in one.people:
            person.was_harmed = True

    @rule()
    def the_masters_watch_is_late_or_not(self) -> None:
        self.is_watch_late = not self.is_watch_late
        self._deliver()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 12.0, 40.0]))
    def time_goes_by(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            self._tick()

    # The end of every run

    def teardown(self) -> None:
        self.is_watch_late = False
        for instance in self.instances:
            instance.is_frozen = False
        for _ in range(4):
            self.all_steps()
            self.time_goes_by(GRACE_S)
        self._check_owners()
        self._check_the_well()
        for index in range(3):
            self.an_instance_is_killed(index)
        self.time_goes_by(GRACE_S + EMPTY_S + 10.0)
        assert self.rooms.entries == {}, "when everybody is dead nothing is left"

    def _check_owners(self) -> None:
        for key, entry in self.rooms.entries.items():
            parsed, value = subjects.parse_room_entry(key), entry.value
            match value:
                case ParticipantRecord():
                    assert value.session_id in self.sessions.entries, f"{key} is a ghost"
                case PublicationRecord():
                    owner = subjects.participant_key(parsed.room_key, value.publication.participant_id)
                    assert owner in self.rooms.entries, f"{key} has no owner"
                case IdentityRecord():
                    holder = subjects.participant_key(parsed.room_key, value.participant_id)
                    assert holder in self.rooms.entries, f"{key} has no holder"

    def _check_the_well(self) -> None:
        for instance in self.instances:
            for person in instance.people:
                if person.is_joined and not person.is_leaving and not person.was_harmed:
                    keys = self.rooms.entries
                    assert subjects.participant_key(person.room, person.id) in keys
                    assert all(subjects.publication_key(person.room, pub) in keys for pub in person.publications)
                    held = keys.get(subjects.identity_key(person.room, person.identity))
                    assert held is not None, f"{person} has lost its identity"
                    assert held.value.participant_id == person.id, f"{person} has lost its identity to another"

    # What signaling does, step by step

    def _join(self, person: Person) -> Iterator[None]:
        room_record, began = subjects.room_record_key(person.room), self.now
        if room_record not in self.rooms.entries:
            run(self.rooms.put(room_record, RoomRecord(name="room", created_at_ms=1 + round(self.now * 1000))))
        yield
        key, claim = subjects.identity_key(person.room, person.identity), IdentityRecord(participant_id=person.id)
        former = self.rooms.entries.get(key)
        run(self.rooms.put(key, claim))
        if former is not None and former.value.participant_id != person.id:
            entry = self.rooms.entries.get(subjects.participant_key(person.room, former.value.participant_id))
            if entry is not None:
                yield from self._remove(person.room, entry.value)
        yield  # The media node may take seconds to answer.
        if self.now - began > JOIN_TIMEOUT_S:
            return
        writes = [lambda: self._write_session(person), lambda: self._write_participant(person, "n1")]
        writes += [lambda pub=pub: self._write_publication(person, pub, "n1") for pub in person.publications]
        self.rng.shuffle(writes)
        for write in writes:
            write()
        person.is_joined = True

    def _move(self, person: Person) -> Iterator[None]:
        if subjects.participant_key(person.room, person.id) in self.rooms.entries:
            self._write_participant(person, "n2")
            for pub in person.publications:
                self._write_publication(person, pub, "n2")
        yield

    def _remove(self, room: str, record: ParticipantRecord) -> Iterator[None]:
        person = record.participant
        owned = [e for e in self.rooms.entries.values() if isinstance(e.value, PublicationRecord)]
        for entry in [e for e in owned if e.value.publication.participant_id == person.id]:
            run(self.rooms.delete(entry.key, final=entry.value))
            yield
        final = ParticipantRecord()
        final.CopyFrom(record)
        final.leave_reason = LEAVE_REASON_CLIENT_REQUEST
        held = self.rooms.entries.get(subjects.identity_key(room, person.identity))
        steps = [
            lambda: run(self.rooms.delete(subjects.participant_key(room, person.id), final=final)),
            lambda: run(self.sessions.delete(record.session_id)),
        ]
        if held is not None and held.value.participant_id == person.id:
            steps.append(lambda: self._release(held))
        self.rng.shuffle(steps)
        for step in steps:
            step()
            yield

    def _release(self, held: Entry[Any]) -> None:
        if self.rooms.entries.get(held.key) == held:
            run(self.rooms.delete(held.key, revision=held.revision))

    def _let_go(self, instance: Instance, person: Person) -> None:
        person.is_leaving = True
        instance.steps.append(self._remove(person.room, self._participant(person, "n1")))

    def _participant(self, person: Person, node: str) -> ParticipantRecord:
        about = Participant(id=person.id, identity=person.identity)
        return ParticipantRecord(participant=about, session_id=person.session, node_id=node)

    def _write_participant(self, person: Person, node: str) -> None:
        run(self.rooms.put(subjects.participant_key(person.room, person.id), self._participant(person, node)))

    def _write_publication(self, person: Person, pub: str, node: str) -> None:
        publication = Publication(id=pub, participant_id=person.id, tracks=[Track(id=f"tr_{pub}")])
        record = PublicationRecord(publication=publication, node_id=node)
        run(self.rooms.put(subjects.publication_key(person.room, pub), record))

    def _write_session(self, person: Person) -> None:
        run(self.sessions.put(person.session, SessionRecord(session_id=person.session, participant_id=person.id)))
        self.expires[person.session] = self.now + GRACE_S

    # Time

    def _advance(self, instance: Instance, steps: Iterator[None]) -> None:
        try:
            next(steps)
        except StopIteration:
            instance.steps.remove(steps)

    def _tick(self) -> None:
        for session in [session for session, at in self.expires.items() if at <= self.now]:
            run(self.sessions.delete(session))
        for instance in self.instances:
            if not instance.is_frozen:
                self._serve(instance)
        self._deliver()
        for reap in self.reaper.due(self.view, self.now):
            run(self.store.reap(reap))

    def _serve(self, instance: Instance) -> None:
        """Refreshes sessions, and lets go of whoever was taken out of the room by somebody else."""
        is_refresh = self.now - instance.refreshed_at >= REFRESH_S
        for person in instance.people:
            if not person.is_joined or person.is_leaving:
                continue
            if subjects.participant_key(person.room, person.id) not in self.rooms.entries:
                self._let_go(instance, person)
            elif is_refresh:
                self._write_session(person)
        if is_refresh:
            instance.refreshed_at = self.now

    def _room_changed(self, key: str, value: Any, revision: int) -> None:
        self.late.append(lambda: self.view.apply_room_change(key, value, revision, self.now))

    def _session_changed(self, key: str, value: Any, _revision: int) -> None:
        if value is None:
            self.expires.pop(key, None)
        self.late.append(lambda: self.view.apply_session_change(key, value))

    def _deliver(self) -> None:
        if not self.is_watch_late:
            changes, self.late = self.late, []
            for change in changes:
                change()


Rooms.TestCase.settings = settings(
    max_examples=100, derandomize=True, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_rooms = Rooms.TestCase
