"""`python -m mrtc_master`."""

from __future__ import annotations

import sys

from mrtc_common.run import run_service

from .bootstrap import serve
from .config import MasterSettings


def main() -> int:
    """Runs master; the exit status."""
    return run_service(MasterSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
