"""`python -m mrtc_rtcvod`."""

from __future__ import annotations

import sys

from mrtc_common.run import run_service

from .bootstrap import serve
from .config import VodSettings


def main() -> int:
    """Runs rtcvod; the exit status."""
    return run_service(VodSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
