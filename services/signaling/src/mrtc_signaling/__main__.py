"""`python -m mrtc_signaling`: runs the service; `… app …` and `… token …` administer apps."""

from __future__ import annotations

import sys

from mrtc_common.run import run_service

from .bootstrap import serve
from .config import SignalingSettings


def main() -> int:
    """The console script."""
    if len(sys.argv) > 1 and sys.argv[1] in ("app", "token"):
        from .cli import run_cli

        return run_cli(sys.argv[1:])
    return run_service(SignalingSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
