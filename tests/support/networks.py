"""Network namespaces: clients on networks of their own, whose links can be cut. Needs root and `ip` (iproute2)."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x4000_0000
_NUMBERS = itertools.count(1)


def needs_namespaces() -> None:
    """Skips a test where namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    probe = subprocess.run(["ip", "netns", "add", _name(0)], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"network namespaces cannot be made here: {probe.stderr.strip()}")
    _ip("netns", "del", _name(0))


@dataclass(frozen=True)
class Link:
    """A pair of interfaces between this machine and a namespace.

    Attributes:
        host: this machine's address on it.
        client: the namespace's.
        interface: its end in the namespace.
    """

    host: str
    client: str
    interface: str


class Namespace:
    """A client's machine: it reaches this one over its links only, the first link first."""

    def __init__(self, name: str, program_dir: Path) -> None:
        self.name = name
        self.links: list[Link] = []
        self._program_dir = program_dir

    def add_link(self, *, is_v6: bool = False) -> Link:
        """A new network between the namespace and this machine, IPv4 or IPv6 only."""
        number, metric = next(_NUMBERS), 10 + len(self.links)
        # 198.18.0.0/15 and fd00::/8 are nobody's addresses on the Internet (RFC 2544, RFC 4193).
        net, bits = (f"fd00:18:{os.getpid() % 65536:x}:{number:x}::", 64) if is_v6 else (f"198.18.{_free_net()}.", 24)
        link = Link(f"{net}1", f"{net}2", f"net{number}")
        outer = f"mt{os.getpid() % 100000}n{number}"
        flags = ["nodad"] if is_v6 else []
        _ip("link", "add", outer, "type", "veth", "peer", "name", link.interface, "netns", self.name)
        _ip("addr", "add", f"{link.host}/{bits}", "dev", outer, *flags)
        _ip("link", "set", outer, "up")
        self._ip("addr", "add", f"{link.client}/{bits}", "dev", link.interface, *flags)
        self._ip("link", "set", link.interface, "up")
        self._ip("route", "add", "default", "via", link.host, "metric", str(metric))
        self.links.append(link)
        return link

    def remove(self, link: Link) -> None:
        """The network is gone: interface, address and routes, as when a telephone leaves a building."""
        self._ip("link", "del", link.interface)
        self.links.remove(link)

    def listen(self, port: int) -> socket.socket:
        """A listener at a port of its loopback, for use by this process."""

        def listen() -> socket.socket:
            with open(f"/run/netns/{self.name}") as handle:
                # Of this thread alone, which ends with it.
                if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")
            return socket.create_server(("127.0.0.1", port))

        with ThreadPoolExecutor(1) as one:
            return one.submit(listen).result()

    def forbid_udp(self) -> None:
        """As firewalls of companies do; what is sent is refused at once."""
        for family in ("-4", "-6"):
            self._ip(family, "rule", "add", "ipproto", "udp", "prohibit")

    def program(self, path: str) -> str:
        """A program that runs another one inside."""
        wrapper = self._program_dir / f"{self.name}-{Path(path).name}"
        wrapper.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} {path} "$@"\n')
        wrapper.chmod(0o755)
        return str(wrapper)

    def _ip(self, *arguments: str) -> None:
        _ip("-n", self.name, *arguments)


@contextmanager
def namespace(program_dir: Path) -> Iterator[Namespace]:
    """A namespace that lives inside the block; its interfaces go with it."""
    made = Namespace(_name(next(_NUMBERS)), program_dir)
    _ip("netns", "add", made.name)
    try:
        made._ip("link", "set", "lo", "up")
        yield made
    finally:
        _ip("netns", "del", made.name)


class Between:
    """The network between two namespaces, over a router of its own. It joins their first links' addresses."""

    def __init__(self, router: str, ends: tuple[Namespace, Namespace]) -> None:
        self._router = router
        self._ends = ends
        for number, end in enumerate(ends):
            # A range that exists in these namespaces only.
            inner, net = f"between{number}", f"198.19.{number}."
            _ip("-n", router, "link", "add", f"end{number}", "type", "veth", "peer", "name", inner, "netns", end.name)
            _ip("-n", router, "addr", "add", f"{net}1/24", "dev", f"end{number}")
            end._ip("addr", "add", f"{net}2/24", "dev", inner)
            end._ip("link", "set", inner, "up")
        self.restore()
        for number, (here, there) in enumerate((ends, ends[::-1])):
            address = here.links[0].client
            here._ip("route", "add", f"{there.links[0].client}/32", "via", f"198.19.{number}.1", "src", address)

    def cut(self) -> None:
        """What is sent gets lost without a word."""
        for number in range(2):
            _ip("-n", self._router, "link", "set", f"end{number}", "down")

    def restore(self) -> None:
        """It is as before."""
        for number, end in enumerate(self._ends):
            _ip("-n", self._router, "link", "set", f"end{number}", "up")
            _ip("-n", self._router, "route", "replace", f"{end.links[0].client}/32", "via", f"198.19.{number}.2")


@contextmanager
def join_namespaces(one: Namespace, other: Namespace) -> Iterator[Between]:
    """A network between two namespaces, whose first links it joins, that can be cut; inside the block."""
    router = _name(next(_NUMBERS))
    _ip("netns", "add", router)
    try:
        done = ["ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1"]
        subprocess.run(done, check=True, capture_output=True)
        yield Between(router, (one, other))
    finally:
        _ip("netns", "del", router)


def _name(number: int) -> str:
    return f"mrtc-test-{os.getpid()}-{number}"


def _free_net() -> int:
    """A third byte that no interface of this machine uses: test runs may go on side by side."""
    taken = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    return next(n for n in range(os.getpid() % 200, 256) if f"198.18.{n}." not in taken)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
