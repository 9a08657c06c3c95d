"""`python -m mrtc_rtcrecorder`."""

from __future__ import annotations

import sys

from mrtc_common.run import run_service

from .bootstrap import serve
from .config import RecorderSettings


def main() -> int:
    """Runs the recorder; the exit status."""
    return run_service(RecorderSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
