"""The built site in a real browser: no network, readable on a phone and in the dark."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

pytestmark = pytest.mark.browser

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
PHONE: ViewportSize = {"width": 360, "height": 740}
DESK: ViewportSize = {"width": 1280, "height": 900}
# WCAG's ratio of luminances, of a line and the page.
CONTRAST = """selector => {
    const luminance = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
            .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const line = luminance(getComputedStyle(document.querySelector(selector)).stroke);
    const page = luminance(getComputedStyle(document.body).backgroundColor);
    return Math.max(line, page) / Math.min(line, page);
}"""


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: make docs")


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


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_gallery_filters(page: Page, size: ViewportSize) -> None:
    """By words, family and flags; the address keeps what is asked for, and brings it back."""
    page.set_viewport_size(size)
    page.goto((SITE / "activations/index.html").as_uri())
    cards, count = page.locator(".card:visible"), page.locator(".gallery-form output")
    all_of_them = page.locator(".card").count()
    expect(count).to_have_text(f"{all_of_them} of {all_of_them}")
    assert cards.count() == all_of_them

    page.get_by_role("searchbox").fill("Sigmoid gate")
    page.get_by_label("smooth", exact=True).check()
    expect(count).to_have_text(f"{cards.count()} of {all_of_them}")
    names = cards.locator("a").all_inner_texts()
    assert "exo" in names
    assert "hardswish" not in names
    for text in cards.all_inner_texts():
        assert "sigmoid" in text.lower()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]

    address = page.url
    page.get_by_role("button", name="Show all").click()
    expect(count).to_have_text(f"{all_of_them} of {all_of_them}")
    assert "#" not in page.url
    page.goto("about:blank")
    page.goto(address)
    assert cards.locator("a").all_inner_texts() == names
    expect(page.get_by_role("searchbox")).to_have_value("Sigmoid gate")

    page.goto((SITE / "activations/index.html").as_uri() + "#family=gated&learnable=yes")
    assert {card.get_attribute("data-family") for card in cards.all()} == {"gated"}
    assert page.locator("h2:visible").all_inner_texts()[0].startswith("Gated")


def test_the_gallerys_table_is_sorted_by_its_heads(page: Page) -> None:
    """With the keyboard; empty cells come last in either order."""
    page.goto((SITE / "activations/index.html").as_uri())
    page.get_by_label("table", exact=True).check()
    assert page.locator(".card:visible").count() == 0
    head = page.get_by_role("columnheader", name="mean")

    def means() -> list[str]:
        cells = page.locator(".facts tbody tr:visible td:nth-child(5)").all_inner_texts()
        return [text.replace("−", "-") for text in cells]

    for order, sign in (("ascending", 1), ("descending", -1)):
        head.get_by_role("button").press("Enter")
        expect(head).to_have_attribute("aria-sort", order)
        numbers = [sign * float(text) for text in means() if text]
        assert numbers == sorted(numbers)
        assert all(means()[: len(numbers)])
    page.get_by_label("bounded").check()
    assert 0 < len(means()) < len(numbers)
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_gallery_reads_without_scripts(browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((SITE / "activations/index.html").as_uri())
    assert page.locator(".gallery-form").is_hidden()
    assert page.locator(".card:visible").count() == page.locator(".facts tbody tr:visible").count()
    context.close()


def test_the_gallerys_lines_are_seen(page: Page) -> None:
    """A card's curve has three times the contrast of what is behind it, in either look."""
    page.goto((SITE / "activations/index.html").as_uri())
    for kind in ("path:last-child", ".slope"):
        contrast = page.evaluate(CONTRAST, f".card svg {kind}")
        assert contrast >= 3, kind


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
