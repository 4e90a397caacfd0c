"""The leaderboard of the real run in a browser: quiet, sortable, readable on a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from zeta.leaderboard import read_board
from zeta.leaderboard.page import write_page

pytestmark = pytest.mark.browser

PHONE = {"width": 360, "height": 740}
BOARD = Path(__file__).parents[2] / "benchmarks/results/leaderboard/leaderboard.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard")
    write_page(read_board(BOARD), folder)
    return folder


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    """The page, opened; whatever it asks of the network or complains of fails the test."""
    context = browser.new_context()
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto((folder / "leaderboard.html").as_uri())
    yield page
    context.close()
    assert complaints == [(folder / "leaderboard.html").as_uri()]


def test_ranking_is_sorted_by_a_click(page: Page) -> None:
    table = page.locator("table.ranking").first
    table.get_by_role("button", name="time").click()
    times = table.locator("tbody td:nth-child(8)").all_inner_texts()
    found = [float(time) for time in times if time != "–"]
    assert found == sorted(found)
    assert len(found) > 80


def test_a_phone_needs_no_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size(PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_no_table_is_clipped_on_a_desktop(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    clipped = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{clipped}.length") == 0


def test_a_name_leads_to_its_profile(page: Page) -> None:
    page.locator("table.ranking a", has_text="exo").first.click()
    assert page.url.endswith("#activations-exo")
    profile = page.locator("#activations-exo")
    assert profile.get_attribute("open") is not None
    assert profile.locator("tbody tr").count() >= 4
    assert profile.locator("svg.curve path").bounding_box()["height"] > 20
