"""Reads from SDP the little that WHIP and WHEP need: m-lines and ICE credentials. The engine does the negotiation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mrtc_common.errors import BadOfferError

from .ids import derived_id

# More than any client of WHIP or WHEP has; the engine's own limit is higher.
MAX_LINES = 64
_MID_RE = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]{1,32}")  # token of RFC 4566
_ICE_RE = re.compile(r"[A-Za-z0-9+/]{4,256}")  # ice-char of RFC 8839 section 5.4
# libwebrtc (Chromium, Safari and their kin), and Firefox.
_BROWSER_ORIGIN = re.compile(r"^o=(- \d+ \d+ IN IP4 127\.0\.0\.1|mozilla\.\.\.\S+ .*?)\r?$", re.MULTILINE)
_DIRECTIONS = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})


@dataclass(slots=True)
class MediaLine:
    """One m-line of an offer."""

    kind: str
    mid: str = ""
    direction: str = "sendrecv"  # RFC 8866 section 6.7: the default
    rids: list[str] = field(default_factory=list)
    is_rejected: bool = False

    @property
    def sends(self) -> bool:
        """True if the offerer wants to send on it."""
        return not self.is_rejected and self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """True if the offerer wants to receive on it."""
        return not self.is_rejected and self.direction in ("sendrecv", "recvonly")


def media_lines(sdp: str) -> list[MediaLine]:
    """The audio and video m-lines of an offer. Raises BadOfferError."""
    lines: list[MediaLine] = []
    session_direction = "sendrecv"
    for raw in sdp.splitlines():
        line = raw.strip()
        if line.startswith("m="):
            parts = line[2:].split()
            if len(parts) < 4:
                raise BadOfferError(f"malformed m-line: {line[:80]!r}")
            if len(lines) >= MAX_LINES:
                raise BadOfferError(f"more than {MAX_LINES} m-lines")
            lines.append(MediaLine(kind=parts[0], direction=session_direction, is_rejected=parts[1] == "0"))
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            if name in _DIRECTIONS:
                if lines:
                    lines[-1].direction = name
                else:
                    session_direction = name
            elif lines:
                _media_attribute(lines[-1], name, value)
    for index, media in enumerate(lines):
        media.mid = media.mid or str(index)  # an offer without mids (RFC 9429 section 5.10: the answerer numbers them)
    return [media for media in lines if media.kind in ("audio", "video")]


def _media_attribute(media: MediaLine, name: str, value: str) -> None:
    if name == "mid":
        if not _MID_RE.fullmatch(value):
            raise BadOfferError(f"malformed mid: {value[:40]!r}")
        media.mid = value
    elif name == "rid":
        rid, _, rest = value.partition(" ")
        if rest.startswith("send") and len(media.rids) < 8:
            media.rids.append(rid)
    elif name == "bundle-only":
        media.is_rejected = False  # port 0 means no more than that it has none of its own (RFC 9143 section 6)


@dataclass(frozen=True, slots=True)
class IceFragment:
    """What a trickle-ice-sdpfrag body (RFC 8840 section 9) says."""

    ufrag: str
    pwd: str
    candidates: int


def parse_fragment(body: str) -> IceFragment:
    """Reads a PATCH body. Raises BadOfferError if it is no SDP fragment."""
    ufrag = pwd = ""
    candidates = 0
    for raw in body.splitlines():
        line = raw.strip()
        if not line:
            continue
        if len(line) < 2 or line[1] != "=":
            raise BadOfferError(f"malformed line in the fragment: {line[:80]!r}")
        if line.startswith("a=ice-ufrag:"):
            ufrag = line.removeprefix("a=ice-ufrag:")
        elif line.startswith("a=ice-pwd:"):
            pwd = line.removeprefix("a=ice-pwd:")
        elif line.startswith("a=candidate:"):
            candidates += 1
    for name, value in (("ice-ufrag", ufrag), ("ice-pwd", pwd)):
        if value and not _ICE_RE.fullmatch(value):
            raise BadOfferError(f"malformed {name}")
    if not ufrag and not candidates and "a=end-of-candidates" not in body:
        raise BadOfferError("the fragment holds neither credentials nor candidates")
    return IceFragment(ufrag, pwd, candidates)


def ice_credentials(sdp: str) -> tuple[str, str]:
    """(ufrag, pwd) of a description: the first ones, since all lines are bundled."""
    ufrag = re.search(r"^a=ice-ufrag:(\S+)", sdp, re.MULTILINE)
    pwd = re.search(r"^a=ice-pwd:(\S+)", sdp, re.MULTILINE)
    return (ufrag.group(1) if ufrag else "", pwd.group(1) if pwd else "")


def ice_etag(answer: str) -> str:
    """Strong, as RFC 9725 section 4.3.1 asks; made from the server's ICE credentials, which name the generation."""
    return f'"{derived_id("ice", *ice_credentials(answer))}"'


def with_ice_credentials(offer: str, ufrag: str, pwd: str) -> str:
    """The offer again with other ICE credentials: what an ICE restart by fragment means for the engine."""
    fresh = re.sub(r"^a=ice-ufrag:\S+", lambda _: f"a=ice-ufrag:{ufrag}", offer, flags=re.MULTILINE)
    fresh = re.sub(r"^a=ice-pwd:\S+", lambda _: f"a=ice-pwd:{pwd}", fresh, flags=re.MULTILINE)
    # Candidates of the former generation are void (RFC 8445 section 9).
    return re.sub(r"^a=(candidate:[^\r\n]*|end-of-candidates)\r?\n", "", fresh, flags=re.MULTILINE)


def restart_fragment(answer: str) -> str:
    """The answer to an ICE restart (RFC 9725 section 4.3.3): new credentials and candidates as a fragment."""
    ufrag, pwd = ice_credentials(answer)
    lines = ["a=ice-lite"] if re.search(r"^a=ice-lite", answer, re.MULTILINE) else []
    lines += ["a=ice-options:trickle ice2", f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}"]
    first_media = re.search(r"^m=[^\r\n]*", answer, re.MULTILINE)
    mid = re.search(r"^a=mid:(\S+)", answer, re.MULTILINE)
    if first_media and mid:
        lines += [first_media.group(0), f"a=mid:{mid.group(1)}"]
    lines += sorted(set(re.findall(r"^a=candidate:[^\r\n]*", answer, re.MULTILINE)))
    return "\r\n".join([*lines, "a=end-of-candidates", ""])


def follows_calls(offer: str) -> bool:
    """True if a browser wrote it, by its `o=` line: such a client goes over to a node that sends it checks."""
    return _BROWSER_ORIGIN.search(offer) is not None
