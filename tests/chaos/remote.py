"""Participants in a process of their own, so that nobody's encoding or connecting delays what somebody else sees.

Run as `python -m tests.chaos.remote`, it reads JSON lines: first a list of `Invitation`s, then commands. Each is
answered by one line. `Crowd` is the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.chaos import rtp_log
from tests.chaos.people import Person
from tests.support.versions import Version

_MAX_LINE = 16 << 20
_END_TIMEOUT_S = 15.0
_JOIN_TIMEOUT_S = _ANSWER_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Invitation:
    """Who joins what. `is_light`: sound that was encoded before, and that of few others; no pictures."""

    url: str
    token: str
    room: str
    identity: str
    number: int
    is_light: bool = False


@dataclass
class Report:
    """What a participant has to say, as of the last time that it was asked.

    Attributes:
        tracks: of each of the others' tracks, when its last frame came (monotonic clock), None if none came yet.
        gaps_s: longest time without a frame of any of them since the mark, by the identity of whose they are.
        session_id: of its session.
        sent: as in `Person`.
        received: as in `Person`.
        message_gap_s: longest time without a message of any of them since the mark.
    """

    tracks: dict[str, float | None]
    gaps_s: dict[str, float]
    session_id: str
    sent: list[int]
    received: dict[str, dict[int, int]]
    message_gap_s: float = 0.0

    @property
    def gap_s(self) -> float:
        """The longest of all."""
        return max(self.gaps_s.values(), default=0.0)

    def is_whole(self, since: float) -> bool:
        """True if a frame of every track came after a moment."""
        return all(last is not None and last > since for last in self.tracks.values())


class Crowd:
    """Some participants in one child process."""

    def __init__(self, process: asyncio.subprocess.Process, invited: Sequence[Invitation]) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.identities = [one.identity for one in invited]

    @classmethod
    async def join(cls, invited: Sequence[Invitation], version: Version) -> Crowd:
        """Starts the process, of a version; returns when all are in their rooms."""
        process = await asyncio.create_subprocess_exec(
            *(version.python, "-m", "tests.chaos.remote"),
            cwd=version.home,
            env=os.environ | version.env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE,
        )
        crowd = cls(process, invited)
        try:
            async with asyncio.timeout(_JOIN_TIMEOUT_S):
                await crowd._ask([asdict(one) for one in invited])
        except BaseException:
            await crowd.aclose()
            raise
        return crowd

    async def mark(self) -> None:
        """Gaps are counted from now on."""
        await self._ask("mark")

    async def talk(self) -> None:
        """Everybody begins to send a numbered message now and then."""
        await self._ask("talk")

    async def be_quiet(self) -> None:
        """Nobody says more."""
        await self._ask("be_quiet")

    async def reports(self) -> list[Report]:
        """What each has to say, in the order of `identities`."""
        said = await self._ask("report")
        for one in said:
            one["received"] = {
                who: {int(number): times for number, times in got.items()} for who, got in one["received"].items()
            }
        return [Report(**one) for one in said]

    async def aclose(self) -> None:
        """All leave, and the process ends."""
        if self._process.returncode is None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _END_TIMEOUT_S)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _ask(self, what: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._turn:
            stdin.write(json.dumps(what).encode() + b"\n")
            await stdin.drain()
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                answer = await stdout.readline()
        assert answer, f"the process of {self.identities} ended"
        return json.loads(answer)


async def _serve(lines: asyncio.StreamReader, answer: Callable[[Any], None]) -> None:
    people: list[Person] = []

    commands: dict[str, Callable[[Person], object]] = {
        "mark": Person.mark,
        "talk": Person.talk,
        "be_quiet": Person.stop_talking,
        "report": lambda person: asdict(_report(person)),
    }
    try:
        invited = [Invitation(**one) for one in json.loads(await lines.readline())]
        for one in invited:
            people.append(await Person.join(one.url, one.token, one.room, one.identity, one.number, one.is_light))
        # As the documentation of the SDK advises.
        gc.collect()
        gc.freeze()
        answer(None)
        while line := await lines.readline():
            if (command := json.loads(line)) == "mark":
                gc.collect()  # what earlier moves left; in a client that has moved for the eighth time it takes 0.1 s
            answer([commands[command](person) for person in people])
    finally:
        await asyncio.gather(*(person.aclose() for person in people), return_exceptions=True)


def _report(person: Person) -> Report:
    tracks = {one: person.seen[one].last if one in person.seen else None for one in person.tracks()}
    received = {who: dict(got) for who, got in person.received.items()}
    return Report(tracks, person.gaps_s(), person.room.session_id, person.sent, received, person.message_gap_s())


async def _main() -> None:
    rtp_log.install()
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(_MAX_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    out = sys.stdout
    # What libraries print must not be taken for an answer.
    sys.stdout = sys.stderr

    def answer(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    watching = asyncio.create_task(rtp_log.watch_loop())
    try:
        await _serve(lines, answer)
    finally:
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(_main())
