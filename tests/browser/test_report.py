"""The report in a real browser: quiet, sortable, readable on a phone, in the dark and on paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from answering import realistic, study, write_tasks
from zeta.evaluate import Settings
from zeta.evaluate.ranking import MIN_TASKS

pytestmark = pytest.mark.browser

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several tasks, so that the page has every section, but for the skipped tasks'."""
    folder = tmp_path_factory.mktemp("report")
    candidates = ("exo", "learnable_selu_variation", "laplace")
    settings = Settings(candidates, write_tasks(folder, MIN_TASKS), 10, tuning_seeds=(0,))
    return study(folder / "out", realistic, settings, drawn=True)[0].report


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, opened; whatever it asks of the network or complains of fails the test."""
    context = browser.new_context()
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert complaints == [report.as_uri()]


def raw_values(page: Page) -> list[str]:
    return page.locator("table.sortable").last.locator("tbody td:nth-child(6)").all_inner_texts()


def test_sections_in_order(page: Page) -> None:
    assert page.locator("h2").all_inner_texts() == [
        "Differences", "All tasks together", "Learning-rate sensitivity", "Training curves",
        "The activations", "Scores", "Protocol", "Raw results", "Environment",
    ]  # fmt: skip
    assert page.locator(".verdict").bounding_box()["y"] < 100


@pytest.mark.parametrize("how", ["click", "Enter", "Space"])
def test_the_raw_table_sorts(page: Page, how: str) -> None:
    page.locator("details", has=page.locator("table.sortable")).last.locator("summary").click()
    table = page.locator("table.sortable").last
    heading = table.get_by_role("columnheader", name="value")
    before = raw_values(page)
    for order in ("ascending", "descending"):
        if how == "click":
            heading.get_by_role("button").click()
        else:
            heading.get_by_role("button").press(how)
        assert heading.get_attribute("aria-sort") == order
        found = raw_values(page)
        numbers = [float(value) for value in found if value != "–"]
        assert numbers == sorted(numbers, reverse=order == "descending")
        assert sorted(found) == sorted(before)
    table.get_by_role("columnheader", name="task").get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None


def test_a_phone_needs_no_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size(PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator("svg").first.bounding_box()["width"] > 300


def test_tables_are_not_clipped(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    clipped = "all => all.filter(e => e.scrollWidth > e.clientWidth).length"
    assert page.locator(".scroll").evaluate_all(clipped) == 0


def test_values_are_found_at_the_pointer(page: Page) -> None:
    found = page.evaluate(
        """() => {
            const circle = [...document.querySelectorAll(".tips circle")].at(3);
            circle.scrollIntoView({block: "center"});
            const box = circle.getBoundingClientRect();
            const at = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return at.tagName + " " + at.querySelector("title").textContent;
        }"""
    )
    assert found.startswith("circle exo − ")


def test_dark_mode(page: Page) -> None:
    def colours() -> list[str]:
        return page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
                      getComputedStyle(document.querySelector("svg text")).fill]"""
        )

    page.emulate_media(color_scheme="light")
    light = colours()
    page.emulate_media(color_scheme="dark")
    dark = colours()
    assert brightness(light[0]) > 200 > 100 > brightness(light[1])
    assert brightness(dark[0]) < 60 < 200 < brightness(dark[1])


def brightness(colour: str) -> float:
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3


def test_printing_unfolds_the_plots(page: Page) -> None:
    folded = page.locator("details.plots:not([open])")
    assert folded.count() == 2
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.count() == 2
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") > 3


def test_every_plot_has_an_accessible_name(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    plots = page.get_by_role("img")
    assert plots.count() == page.locator("svg").count() > 3 * MIN_TASKS
    assert all(len(plot.get_attribute("aria-label") or "") > 20 for plot in plots.all())


def test_without_scripts_the_tables_are_there(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("table.sortable").last.locator("tbody tr").count() == MIN_TASKS * 7 * 10
    assert page.locator("th button").count() == 0
    context.close()
