"""Torments calls on real processes and says what it cost: `python -m tests.chaos`. Ends with one JSON line.

The figures of the call with Chromium are told before it: three more people on the same cores would spoil the others.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.chaos.call import Call, call_of
from tests.chaos.census import descriptors, leaked_descriptors
from tests.chaos.figures import Figures
from tests.chaos.recording import record_while, recorder_of
from tests.support.suite import RunningSuite, running_suite

Trial = Callable[[Call, Figures], Awaitable[None]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--people", type=int, default=6, help="participants of the call (default 6)")
    parser.add_argument("--nodes", type=int, default=3, help="rtcmcu nodes (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is done (default 3)")
    parser.add_argument("--nats-s", type=float, default=600.0, help="seconds without NATS (default 600), in one round")
    parser.add_argument("--seed", type=int, default=1, help="decides the order of what is done (default 1)")
    parser.add_argument("--browsers", type=int, default=2, help="Chromium in a call of its own (default 2)")
    parser.add_argument("--only", default="", help="names of trials, by commas, for example moves,drain (default all)")
    return parser.parse_args()


async def moves(call: Call, figures: Figures) -> None:
    """Everybody moves, one after the other."""
    for identity in call.identities:
        figures.moves += told(call, await call.move(identity))


async def drain(call: Call, figures: Figures) -> None:
    """A node is emptied."""
    figures.drains += told(call, await call.drain())


async def kill_media_node(call: Call, figures: Figures) -> None:
    """A node dies."""
    figures.media_kills += told(call, await call.kill_media_node())


async def freeze_media_node(call: Call, figures: Figures) -> None:
    """A node stands still for longer than its lease."""
    figures.freezes += told(call, await call.freeze_media_node(15.0))


async def kill_signaling(call: Call, figures: Figures) -> None:
    """A signaling instance dies."""
    name = f"signaling-{random.randint(1, call.suite.options.signalings)}"
    figures.signaling_kills += told(call, await call.kill(name))


async def kill_master(call: Call, figures: Figures) -> None:
    """The master dies."""
    figures.master_kills += told(call, await call.kill("master", away_s=3.0))


async def kill_recorder(call: Call, figures: Figures) -> None:
    """A recorder dies while it records."""
    figures.recording_losses.append(said(await _record_while_killed(call, "single")))


async def kill_recorder_of_mix(call: Call, figures: Figures) -> None:
    """A recorder dies while it mixes."""
    figures.mix_losses.append(said(await _record_while_killed(call, "mixed")))


async def kill_recorder_container(call: Call, figures: Figures) -> None:
    """A recorder dies while it mixes, and its mixing process with it."""
    figures.mix_container_losses.append(said(await _record_while_killed(call, "mixed", with_children=True)))


async def _record_while_killed(call: Call, mode: str, *, with_children: bool = False) -> float:
    async def kill(recording: str) -> None:
        name = await recorder_of(call, recording)
        await call.kill(name, with_children=with_children)

    return await record_while(call, kill, mode)


async def drain_recorder(call: Call, figures: Figures) -> None:
    """A recorder drains while it records."""

    async def stop(recording: str) -> None:
        await call.restart(await recorder_of(call, recording))

    figures.recording_losses.append(said(await record_while(call, stop)))
    figures.mix_losses.append(said(await record_while(call, stop, "mixed")))


async def record_and_kill_media_node(call: Call, figures: Figures) -> None:
    """The node that a recorder listens at dies."""

    async def kill(_recording: str) -> None:
        figures.media_kills += told(call, await call.kill_media_node())

    figures.recording_node_losses.append(said(await record_while(call, kill)))


async def record_and_drain(call: Call, figures: Figures) -> None:
    """The node that a recorder listens at drains."""

    async def drain(_recording: str) -> None:
        figures.drains += told(call, await call.drain())

    figures.recording_node_losses.append(said(await record_while(call, drain)))


async def nats_away(call: Call, figures: Figures, seconds: float) -> None:
    """NATS dies and is away."""
    figures.nats_down += told(call, await call.kill("nats", away_s=seconds))
    figures.joins_after_nats.append(said(await call.time_to_join()))


async def torment(suite: RunningSuite, options: argparse.Namespace, figures: Figures) -> None:
    """Rounds of everything in random order, in a new call each."""
    chance = random.Random(options.seed)
    random.seed(options.seed)
    before = descriptors(suite)
    for turn in range(options.rounds):
        trials: list[Trial] = [
            moves, drain, kill_media_node, freeze_media_node, kill_signaling, kill_signaling, kill_master,
            kill_recorder, kill_recorder_of_mix, kill_recorder_container, drain_recorder, record_and_kill_media_node,
            record_and_drain,
        ]  # fmt: skip
        if options.only:
            trials = [trial for trial in trials if trial.__name__ in options.only.split(",")]
        chance.shuffle(trials)
        async with call_of(suite, f"chaos-{turn}", options.people) as call:
            for trial in trials:
                say(f"round {turn + 1}: {(trial.__doc__ or '').strip().lower()}")
                await trial(call, figures)
            seconds = options.nats_s if turn == 0 else 10.0
            if not options.only or "nats_away" in options.only:
                say(f"round {turn + 1}: NATS is away for {seconds:.0f} s")
                await nats_away(call, figures, seconds)
            await call.settle(figures)
    leaked = await leaked_descriptors(suite, before)
    if leaked:
        say(f"descriptors more than before: {leaked}")
    figures.leaked_descriptors = sum(leaked.values())


async def torment_browsers(suite: RunningSuite, figures: Figures, count: int) -> None:
    """The same with Chromium in the call, which shows its frames by itself: moves and deaths, no recordings."""
    async with call_of(suite, "chaos-browsers", 2, count) as call:
        for trial in (moves, drain, kill_media_node, kill_signaling):
            say(f"with {count} Chromium: {(trial.__doc__ or '').strip().lower()}")
            await trial(call, figures)
        await call.settle(figures)


def told(call: Call, costs: list[float]) -> list[float]:
    """The longest gaps in media again, after they and those in messages were said, in the order of the identities."""
    media, messages = (" ".join(f"{gap:.0f}" for gap in gaps) for gaps in (costs, call.message_gaps_ms()))
    say(f"    without media {media} ms; without messages {messages} ms")
    return costs


def said(milliseconds: float) -> float:
    """The same, after it was said."""
    say(f"    {milliseconds:.0f} ms")
    return milliseconds


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """0 if nothing was lost."""
    options = _arguments()
    figures, with_browsers = Figures(), Figures()
    with (
        tempfile.TemporaryDirectory(prefix="mrtc-chaos-") as data,
        running_suite(
            Path(data), mcus=options.nodes, signalings=2, recorders=2, mcu_workers=1, drain_timeout_s=60.0
        ) as suite,
    ):
        asyncio.run(torment(suite, options, figures))
        if options.browsers:
            asyncio.run(torment_browsers(suite, with_browsers, options.browsers))
    if options.browsers:
        say(f"with Chromium: {with_browsers.line()}")
    print(figures.line())
    return 1 if figures.has_lost or with_browsers.has_lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
