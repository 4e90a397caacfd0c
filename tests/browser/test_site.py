"""The built site in a real browser: no network, readable on a phone and in the dark."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = [
    "index.html",
    "activations/index.html",
    "activations/learnable_selu_variation.html",
    "activations/gelu_tanh.html",
    "api/zeta.nn.html",
    "guides/upstream.html",
    "notebooks/activations.html",
    "results/cpu.html",
    "search.html",
]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium found; install Debian's package: apt-get install chromium")
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: make docs")
    # As root, Chromium does not start with its sandbox.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """An empty page; a request beyond the site's files, or a complaint, fails the test."""
    context = browser.new_context(color_scheme=request.param)
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: r.url.startswith("file:") or complaints.append(r.url))
    page.on("requestfailed", lambda r: complaints.append(f"failed: {r.url}"))
    yield page
    context.close()
    assert complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_quiet_and_fit(page: Page, name: str) -> None:
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        page.goto((SITE / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_one_picture_for_each_look(page: Page) -> None:
    page.goto((SITE / "activations/exo.html").as_uri())
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    shown = [image for image in page.locator(".shapes img").all() if image.is_visible()]
    look = "dark" if dark else "light"
    assert [image.get_attribute("src") for image in shown] == [
        f"../_images/exo-{n}-{look}.svg" for n in (0, 1)
    ]


def test_braces_of_formulas_stretch(page: Page) -> None:
    """Which they do with the site's own font alone."""
    page.goto((SITE / "activations/relu.html").as_uri())
    page.evaluate("document.fonts.ready")
    formula = page.locator("div.math math").first
    brace = formula.locator("mo", has_text="{").bounding_box()
    rows = formula.locator("mtable").bounding_box()
    assert brace is not None
    assert rows is not None
    assert brace["height"] > 0.8 * rows["height"]
