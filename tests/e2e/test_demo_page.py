"""The demo page as a person uses it: by its labels, in two browsers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.caller import wait_until
from tests.support.pattern_file import make_pattern_file
from tests.support.suite import ROOT, RunningSuite

SHOWN_MS = 20_000


@pytest.fixture
def new_person(browsers: list[Browser], suite: RunningSuite) -> Iterator[Callable[[str, str], Page]]:
    """Opens the demo page and joins a room under a name."""
    if not (ROOT / "sdk" / "web" / "dist-demo" / "index.html").is_file():
        pytest.fail("the demo page is not built: run `make web`")
    contexts: list[BrowserContext] = []

    def join(room: str, name: str) -> Page:
        context = browsers[len(contexts) % 2].new_context()
        contexts.append(context)
        page = context.new_page()
        page.goto(suite.url)
        page.get_by_label("Room", exact=True).fill(room)
        page.get_by_label("Your name").fill(name)
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("button", name="Leave")).to_be_visible(timeout=SHOWN_MS)
        return page

    yield join
    for context in contexts:
        context.close()


def plays(page: Page, label: str) -> None:
    """Waits until the tile with this label shows a moving picture."""
    video = page.get_by_role("article", name=label).locator("video")
    expect(video).to_be_visible(timeout=SHOWN_MS)
    began = video.evaluate("video => video.currentTime")
    wait_until(
        lambda: video.evaluate("video => video.videoWidth > 0 && video.currentTime") > began + 0.5,
        f"{label}'s picture plays",
        20,
    )


def test_two_people_talk(new_person: Callable[[str, str], Page], room: str) -> None:
    """Pictures, members, chat, reactions, mute, statistics and leaving, by the page's own controls."""
    ann, ben = new_person(room, "Ann"), new_person(room, "Ben")
    plays(ann, "Ben")
    plays(ben, "Ann")

    for page in (ann, ben):
        page.get_by_role("button", name="People and chat").click()
        expect(page.get_by_role("list").filter(has_text="Ann").filter(has_text="Ben").first).to_be_visible()
    ann.get_by_label("Message").fill("<b>hello</b> Ben")
    ann.get_by_label("Message").press("Enter")
    expect(ben.get_by_role("log")).to_contain_text("<b>hello</b> Ben")

    # The sign floats for a moment only, and is sent on a channel that may lose: clicked until it is seen.
    def is_seen() -> bool:
        ann.get_by_role("button", name="React with 👏").click()
        return ben.get_by_role("article", name="Ann", exact=True).locator(".reaction", has_text="👏").count() > 0

    wait_until(is_seen, "Ben sees Ann's reaction", 20)

    ann.get_by_role("button", name="Mute", exact=True).click()
    expect(ann.get_by_role("button", name="Unmute")).to_be_visible()
    expect(ben.get_by_role("article", name="Ann (muted)")).to_be_visible()
    ann.get_by_role("button", name="Unmute").click()
    expect(ben.get_by_role("article", name="Ann", exact=True)).to_be_visible()

    ann.get_by_role("button", name="Statistics").click()
    expect(ann.get_by_role("article", name="Ben").locator(".figures")).to_contain_text("kbit/s", timeout=SHOWN_MS)

    ben.get_by_role("button", name="Leave").click()
    expect(ben.get_by_role("button", name="Join")).to_be_visible()
    expect(ann.get_by_role("article", name="Ben")).to_have_count(0)


def test_a_recording_plays_on_the_page(new_person: Callable[[str, str], Page], room: str) -> None:
    """Record, stop, watch."""
    page = new_person(room, "Ann")
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.get_by_text("Recording", exact=True).first).to_be_visible(timeout=SHOWN_MS)
    page.wait_for_timeout(5_000)  # what is recorded
    page.get_by_role("button", name="Stop recording").click()
    video = page.locator("#player-video")
    expect(video).to_be_visible(timeout=60_000)
    wait_until(lambda: video.evaluate("video => video.currentTime") > 1, "the recording plays", 30)
    assert video.evaluate("video => video.videoWidth") == 1280


def test_a_file_is_played_to_both(new_person: Callable[[str, str], Page], room: str, tmp_path: Path) -> None:
    """One person uploads, both see it as a participant of its own, and it can be stopped."""
    film = make_pattern_file(tmp_path / "film.mp4", 150, 600.0, 20)
    ann, ben = new_person(room, "Ann"), new_person(room, "Ben")
    with ann.expect_file_chooser() as chooser:
        ann.get_by_role("button", name="Play a file").click()
    chooser.value.set_files(film)
    for page in (ann, ben):
        plays(page, "film.mp4")
    ann.get_by_role("button", name="Stop the file").click()
    for page in (ann, ben):
        expect(page.get_by_role("article", name="film.mp4")).to_have_count(0, timeout=SHOWN_MS)


def test_what_fails_is_told_with_the_next_step(browsers: list[Browser], suite: RunningSuite, room: str) -> None:
    """A token service that is away gives a toast, not silence."""
    context = browsers[0].new_context()
    page = context.new_page()
    page.route(
        "**/demo/token*", lambda route: route.fulfill(status=503, json={"code": "unavailable", "detail": "soon"})
    )
    page.goto(suite.url)
    page.get_by_label("Room", exact=True).fill(room)
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("alert")).to_contain_text("Try again in a few seconds")
    expect(page.get_by_role("button", name="Join")).to_be_enabled()
    context.close()
