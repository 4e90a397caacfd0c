"""The report: one page, well formed, escaped, loading nothing."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from answering import noise, realistic, settings_for, study, write_tasks
from zeta.evaluate import Settings
from zeta.evaluate.charts import training_charts
from zeta.evaluate.pen import PAPER, Pen
from zeta.evaluate.ranking import MIN_TASKS
from zeta.evaluate.report import render
from zeta.evaluate.results import Results, Verdict
from zeta.evaluate.standings import standings
from zeta.evaluate.wording import interval, signed

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
    found, _ = study(
        folder, noise, settings_for(f"{path}:mine", "learnable_selu_variation"), drawn=True
    )
    return found


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Enough tasks for ranks."""
    folder = tmp_path_factory.mktemp("several")
    settings = Settings(("exo", "laplace"), write_tasks(folder, MIN_TASKS), 10, tuning_seeds=(0,))
    return study(folder / "out", realistic, settings, drawn=True)[0]


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


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """More candidates than a verdict in sentences can hold."""
    better = {"exo": 0.05, "mish": 0.1, "elu": -0.3, "silu": 0.2}
    names = ("exo", "mish", "elu", "selu", "celu", "prelu")
    return study(
        tmp_path_factory.mktemp("many"),
        lambda key: noise(key) + better.get(key.activation, 0),
        replace(settings_for(*names, seeds=6), tuning_seeds=(0,), epoch_divisor=10),
        drawn=True,
    )[0]


def test_many_candidates_are_ranked_on_top(many: Results, text: str) -> None:
    page = many.report.read_text()
    ranking = page[page.index('<table class="sortable ranking">') : page.index("<h2>")]
    names = re.findall(r"<b>(\w+)</b></td>|<td>(\w+), baseline</td>", ranking)
    order = [candidate or baseline for candidate, baseline in names]
    assert (order[:3], order[-1]) == (["silu", "mish", "exo"], "elu")
    assert len(order) == 6 + 3, "twins are not ranked"
    assert "6 candidates, in words" in page
    assert '<table class="sortable ranking">' not in text


def test_places_are_of_ranks_and_verdicts_of_tasks(many: Results) -> None:
    by_name = {standing.activation: standing for standing in standings(many)}
    assert (by_name["silu"].place, by_name["silu"].mean_rank, by_name["silu"].first) == (1, 1.0, 1)
    assert (by_name["elu"].place, by_name["elu"].last) == (9, 1)
    assert dict(by_name["elu"].verdicts) == {Verdict.WORSE: 1}
    assert not by_name["silu"].verdicts


def test_every_activation_has_a_line_of_its_own(many: Results) -> None:
    names = tuple(f"f{i}" for i in range(100))
    settings = replace(many.settings, candidates=(*names, "prelu"))
    styles = Pen(replace(many, settings=settings)).styles
    assert len(set(styles.values())) == len(settings.activations) == 100 + 1 + 3 + 1
    twin, candidate = styles["prelu (frozen)"], styles["prelu"]
    assert replace(twin, dash=candidate.dash) == candidate


def test_files_have_the_page_s_colours() -> None:
    css = files("zeta.evaluate").joinpath("templates/report.css").read_text()
    for index, color in enumerate(PAPER.series):
        assert css.count(f"--series-{index}: {color};") == 2, "in the light and in print"


def test_values_are_shown_at_the_pointer(text: str, results: Results) -> None:
    c = results.comparisons[0]
    mean = f"<title>mine − {c.reference}: mean {signed(c.mean)}, {interval(c.low, c.high)}</title>"
    assert text.count(mean) == 1
    tuned = results.tunings[0]
    assert f"<title>mine: {tuned.score:.4f} at {tuned.learning_rate:g}</title>" in text
    assert "<title>relu: 1 in epoch 1</title>" in text
    for circle in re.findall(r'<circle cx="(.*?)" cy="(.*?)"', text):
        assert all(0 <= float(place) <= 72 * 8 for place in circle)


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
    assert "Training its parameters left undecided whether it matters on digits." in text


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
    results, _ = study(tmp_path / "out", realistic, settings_for(*names), drawn=True)
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


def test_scores_by_epoch_stand_beside_the_loss(results: Results) -> None:
    scores = tuple(0.1 * part for part in range(1, 11))
    trials = tuple(replace(trial, score_curve=scores) for trial in results.trials)
    charts = training_charts(replace(results, trials=trials))
    assert [chart.title for chart in charts] == [
        "digits: training loss",
        "digits: validation accuracy by epoch",
        "digits: test accuracy by epoch",
    ]
    assert "silu: 1.0000 after epoch 20" in charts[1].svg
    assert len(re.findall("after epoch 20", charts[2].svg)) == len(results.settings.activations)
