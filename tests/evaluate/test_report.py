"""The report: one page, well formed, escaped, loading nothing."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from answering import noise, realistic, settings_for, study, write_tasks
from zeta.evaluate import Settings
from zeta.evaluate.charts import training_charts
from zeta.evaluate.ranking import MIN_TASKS
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
def several(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Enough tasks for ranks."""
    folder = tmp_path_factory.mktemp("several")
    settings = Settings(("exo", "laplace"), write_tasks(folder, MIN_TASKS), tuning_seeds=(0,))
    return study(folder / "out", realistic, settings)[0]


@pytest.fixture(scope="module")
def text(results: Results) -> str:
    return results.report.read_text()


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_well_formed_and_self_contained(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert all(url.startswith("#") for url in page.urls)
    assert not re.search(r"@import|url\((?!#)|<link|<script ", text)
    referenced = set(re.findall(r'url\(#([\w-]+)\)|href="#([\w-]+)"', text))
    assert {a or b for a, b in referenced} <= set(page.ids)


def test_its_policy_admits_its_own_script_alone(text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


def test_verdict_first_then_plots_protocol_table_environment(text: str, results: Results) -> None:
    assert text.index(results.conclusion.headline, text.index("<body>")) < text.index("<h2>")
    assert headings(text) == ["Differences", "Learning-rate sensitivity", "Training curves",
                              "The activations", "Scores", "Protocol", "Raw results",
                              "Environment"]  # fmt: skip
    raw = text[text.index("Raw results") :]
    assert raw.count("<td>ok</td>") == 6 * 10
    assert results.environment["CPU"] in text


def test_several_tasks_are_also_looked_at_together(several: Results) -> None:
    text = several.report.read_text()
    assert headings(text)[:2] == ["Differences", "All tasks together"]
    labels = " ".join(filter(None, Page(text).labels))
    for what in ("Interquartile mean", "Performance profiles", "Critical-difference diagram"):
        assert what in labels
    assert "of 6 tasks" in several.conclusion.headline


def test_many_tasks_are_folded_and_few_are_not(several: Results, text: str) -> None:
    assert '<details class="plots" open>' in text
    assert '<details class="plots">' in several.report.read_text()


def test_the_ablation_is_shown(text: str) -> None:
    assert "Trained against frozen parameters" in text
    assert "Training its parameters made no difference that was found on digits." in text


def test_skipped_tasks_say_what_to_install(results: Results) -> None:
    page = render(replace(results, skipped={"cifar": "needs datasets: pip install datasets"}))
    assert headings(page)[-1] == "Skipped tasks"
    assert "Not in this report: cifar; the end of this page says why." in page
    assert "<dt>cifar</dt><dd>needs datasets: pip install datasets</dd>" in page


def test_every_plot_is_described(text: str) -> None:
    labels = Page(text).labels
    assert len(labels) == 3 + 5, "the frozen twin has its candidate's shape"
    assert all(label and len(label) > 20 for label in labels)
    assert "95 % interval" in labels[0]


def test_plots_follow_the_page_s_colours(text: str) -> None:
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--ink)" in svgs
    assert "var(--series-0)" in svgs
    assert not re.search(r"#0[123]01\w\w|#ffffff|#000000", svgs)
    assert "prefers-color-scheme: dark" in text


NASTY = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>$\\frac{1}$"


def test_plots_show_numbers_and_no_markup(several: Results) -> None:
    svgs = " ".join(re.findall(r"<svg.*?</svg>", several.report.read_text(), re.DOTALL))
    assert "mathdefault" not in svgs
    assert re.search(r">0\.001</text>", svgs), "a learning rate"


def test_what_users_name_is_escaped(results: Results) -> None:
    info = replace(results.tasks[0], title=NASTY)
    environment = {**results.environment, NASTY: NASTY}
    page = render(replace(results, tasks=(info,), environment=environment, skipped={NASTY: NASTY}))
    assert page.count("&lt;script&gt;") >= 5
    assert_harmless(page)


def test_names_of_activations_and_tasks_are_escaped_everywhere(tmp_path: Path) -> None:
    """Two files with the same name in them are shown by their whole paths."""
    names = []
    for folder in ("a", "<script>alert('x')<∕script>"):
        path = tmp_path / folder / '"><img src=x onerror=alert(1)>$\\frac{1}$.py'
        path.parent.mkdir(parents=True)
        path.write_text("from zeta import formula\n@formula\ndef f(x):\n    return x * abs(x)\n")
        names.append(f"{path}:f")
    results, _ = study(tmp_path / "out", realistic, settings_for(*names))
    assert results.names[names[0]] == names[0]
    assert_harmless(results.report.read_text())


def assert_harmless(page: str) -> None:
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert Page(page).open == []


def test_the_same_results_give_the_same_page(results: Results) -> None:
    assert render(results) == render(results)


def test_the_loss_of_a_single_epoch_is_seen(results: Results) -> None:
    trials = tuple(replace(trial, curve=(0.5,)) for trial in results.trials)
    (chart,) = training_charts(replace(results, trials=trials))
    markers = re.findall(r"<use [^>]*var\(--series-\d\)", chart.svg)
    assert len(markers) == len(results.settings.activations)
