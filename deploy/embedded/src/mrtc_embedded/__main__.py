"""`make run`: starts the whole suite on this machine, prints the URL, ends it cleanly on Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path

from mrtc_embedded.process import StartError
from mrtc_embedded.suite import ROOT, Suite, SuiteOptions


def main() -> None:
    """Entry point. Exits with 1 if a process cannot start or ends unasked."""
    parser = argparse.ArgumentParser(prog="mrtc-embedded", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="HTTP port of the demo page and the API (default 8080)")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--data", type=Path, default=ROOT / "var", help="state, recordings and logs (default var/)")
    parser.add_argument("--mcus", type=int, default=2, help="rtcmcu nodes (default 2)")
    parser.add_argument("--captures", action="store_true", help="allow `make capture`: packets in the clear, on disk")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    static = ROOT / "sdk" / "web" / "dist-demo"
    options = SuiteOptions(
        data_dir=arguments.data.resolve(),
        http_port=arguments.port,
        bind_ip=arguments.bind,
        mcus=arguments.mcus,
        static_dir=static if static.is_dir() else None,
        log_format=arguments.log_format,
        captures=arguments.captures,
    )
    sys.exit(asyncio.run(_run(options)))


async def _run(options: SuiteOptions) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    began = time.monotonic()
    suite = Suite(options)
    print(f"starting {len(suite.processes)} processes; logs in {options.data_dir / 'log'}", flush=True)
    starting = asyncio.create_task(
        suite.start(lambda name, seconds: print(f"  {name:<14} ready {seconds:5.1f} s", flush=True))
    )
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 130
    try:
        starting.result()
    except StartError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"\nMRTC suite is up after {time.monotonic() - began:.1f} s:  {suite.url}/", flush=True)
    print("open it in two browser tabs to be in a call; Ctrl-C ends everything", flush=True)
    code = await _supervise(suite, stopping)
    print("\nending …", flush=True)
    killed = await suite.stop()
    print("ended cleanly" if not killed else f"had to kill {', '.join(killed)}", flush=True)
    return code


async def _supervise(suite: Suite, stopping: asyncio.Task[bool]) -> int:
    """Waits for Ctrl-C; a process that ends by itself is started again, as Kubernetes would."""
    watches = {asyncio.create_task(process.wait()): name for name, process in suite.processes.items()}
    while True:
        done, _ = await asyncio.wait({*watches, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping in done:
            for watch in watches:
                watch.cancel()
            return 0
        for watch in done:
            name = watches.pop(watch)
            print(f"  {name} ended with {watch.result()}; starting it again", file=sys.stderr, flush=True)
            try:
                await suite.restart(name)
            except StartError as error:
                print(error, file=sys.stderr)
                return 1
            watches[asyncio.create_task(suite.processes[name].wait())] = name


if __name__ == "__main__":
    main()
