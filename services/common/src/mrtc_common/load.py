"""Measures what the process uses of what it may use; knows cgroup limits, v1 and v2."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def cpu_limit_cores(cgroup_root: Path = _CGROUP) -> float:
    """Cores that the process may use: its affinity, and the quota of its cgroup if there is one."""
    affinity = float(len(os.sched_getaffinity(0)))
    quota = _quota_v2(cgroup_root) or _quota_v1(cgroup_root)
    return min(affinity, quota) if quota else affinity


def _quota_v2(root: Path) -> float | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(root: Path) -> float | None:
    for folder in ("cpu", "cpu,cpuacct"):
        try:
            quota = int((root / folder / "cpu.cfs_quota_us").read_text())
            period = int((root / folder / "cpu.cfs_period_us").read_text())
            if quota > 0 and period > 0:
                return quota / period
        except (OSError, ValueError):
            continue
    return None


class CpuMeter:
    """Cores used by the process since the last look, threads and all."""

    def __init__(self, *, include_children: bool = False) -> None:
        self._process = psutil.Process()
        self._include_children = include_children
        self._at = time.monotonic()
        self._used = self._used_seconds()
        self._cores = 0.0

    def cores(self) -> float:
        """Average since the last call; calls within a quarter of a second repeat the last figure."""
        now = time.monotonic()
        if now - self._at >= 0.25:
            used = self._used_seconds()
            self._cores = max(0.0, (used - self._used) / (now - self._at))
            self._at, self._used = now, used
        return self._cores

    def _used_seconds(self) -> float:
        times = self._process.cpu_times()
        total = times.user + times.system
        if self._include_children:
            total += times.children_user + times.children_system
            for child in self._process.children(recursive=True):
                try:
                    child_times = child.cpu_times()
                except psutil.Error:
                    continue
                total += child_times.user + child_times.system
        return float(total)


class RateMeter:
    """Turns a growing counter into a rate per second."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._value = 0.0

    def rate(self, value: float) -> float:
        """Per second since the last call; 0 at the first one and when the counter began anew."""
        now = time.monotonic()
        last_at, last_value = self._at, self._value
        self._at, self._value = now, value
        if last_at is None or now <= last_at or value < last_value:
            return 0.0
        return (value - last_value) / (now - last_at)


class Smoothed:
    """A figure that follows a rise soon and a fall slowly: one quiet second does not make a busy node look idle.

    Args:
        rise_s, fall_s: time constants.
        step: smaller changes are not shown, so that noise does not look like movement.
    """

    def __init__(self, *, rise_s: float = 2.0, fall_s: float = 15.0, step: float = 0.02) -> None:
        self._rise_s, self._fall_s, self._step = rise_s, fall_s, step
        self._at: float | None = None
        self._value = self._shown = 0.0

    def update(self, value: float, now: float | None = None) -> float:
        """Takes a measurement and returns the figure to show. `now`: monotonic seconds."""
        now = time.monotonic() if now is None else now
        if self._at is not None:
            elapsed = max(0.0, now - self._at)
            share = 1 - math.exp(-elapsed / (self._rise_s if value > self._value else self._fall_s))
            self._value += share * (value - self._value)
        else:
            self._value = value
        self._at = now
        if abs(self._value - self._shown) >= self._step or self._value < self._step:
            self._shown = self._value
        return self._shown
