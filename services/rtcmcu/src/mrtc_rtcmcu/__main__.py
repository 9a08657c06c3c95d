"""`python -m mrtc_rtcmcu`."""

from __future__ import annotations

import sys

from mrtc_common.run import run_service

from .bootstrap import serve
from .config import McuSettings


def main() -> int:
    """Runs rtcmcu; the exit status."""
    return run_service(McuSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
