"""The report: one page, well formed, escaped, loading nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from answering import noise, settings_for, study
from zeta.evaluate.report import render
from zeta.evaluate.results import Results

VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.urls, self.labels = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.open += [] if tag in VOID else [tag]
        self.ids += [found["id"]] if "id" in found else []
        self.urls += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        self.labels += [found.get("aria-label")] if tag == "svg" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("<b>&report")
    path = folder / "mine.py"
    path.write_text("from zeta import formula\n@formula\ndef mine(x):\n    return x * abs(x)\n")
    found, _ = study(folder, noise, settings_for(f"{path}:mine", "learnable_selu_variation"))
    return found


@pytest.fixture(scope="module")
def text(results: Results) -> str:
    return results.report.read_text()


def test_well_formed_and_self_contained(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert all(url.startswith("#") for url in page.urls)
    assert not re.search(r"@import|url\((?!#)|<script|<link", text)
    referenced = set(re.findall(r'url\(#([\w-]+)\)|href="#([\w-]+)"', text))
    assert {a or b for a, b in referenced} <= set(page.ids)


def test_verdict_first_then_plots_protocol_table_environment(text: str, results: Results) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert text.index(results.conclusion.headline, text.index("<body>")) < text.index("<h2>")
    assert headings == ["Differences", "Scores", "Learning-rate sensitivity", "Training curves",
                        "The activations", "Protocol", "Raw results", "Environment"]  # fmt: skip
    raw = text[text.index("Raw results") :]
    assert raw.count("<td>ok</td>") == 5 * 10
    assert results.environment["CPU"] in text


def test_every_plot_is_described(text: str) -> None:
    labels = Page(text).labels
    assert len(labels) == 3 + 5
    assert all(label and len(label) > 20 for label in labels)
    assert "95 % interval" in labels[0]


def test_plots_follow_the_page_s_colours(text: str) -> None:
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--ink)" in svgs
    assert "var(--series-0)" in svgs
    assert not re.search(r"#0[123]01\w\w|#ffffff|#000000", svgs)
    assert "prefers-color-scheme: dark" in text


def test_what_users_name_is_escaped(results: Results) -> None:
    nasty = "<script>alert('x')</script>"
    info = replace(results.tasks[0], title=nasty)
    environment = {**results.environment, nasty: nasty}
    page = render(replace(results, tasks=(info,), environment=environment))
    assert nasty not in page
    assert page.count("&lt;script&gt;") == 3


def test_the_same_results_give_the_same_page(results: Results) -> None:
    assert render(results) == render(results)
