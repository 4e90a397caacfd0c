"""The report's figures and tables as files."""

import re
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from matplotlib.figure import Figure

from answering import noise, settings_for, study, write_tasks
from command import here
from zeta._errors import UserError
from zeta.evaluate.charts import sensitivity_charts
from zeta.evaluate.figures import _slugs, tables, write_figures
from zeta.evaluate.pen import PAGE, PAPER
from zeta.evaluate.results import Results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("figures")
    settings = replace(settings_for("exo", "prelu", seeds=4), tasks=write_tasks(folder, 2))
    settings = replace(settings, tuning_seeds=(0,), epoch_divisor=10)
    return study(folder / "out", noise, settings)[0]


def test_each_figure_has_two_files_and_each_table_too(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charts = sensitivity_charts(results)  # of all kinds would take seconds
    monkeypatch.setattr("zeta.evaluate.figures._figures", lambda _: {"rates": charts[0]})
    folder = tmp_path / "new" / "folder"
    assert write_figures(results, folder) == (1, 6)
    assert {path.name for path in folder.iterdir()} == {
        "rates.svg", "rates.pdf",
        *(f"{name}.{suffix}" for name in tables(results) for suffix in ("csv", "tex")),
    }  # fmt: skip
    svg = (folder / "rates.svg").read_text()
    assert PAPER.series[0] in svg
    assert not re.search("var\\(--|<circle|" + "|".join(PAGE.series), svg), "no page's colours"
    assert (folder / "rates.pdf").read_bytes().startswith(b"%PDF")
    read = pandas.read_csv(folder / "scores.csv")
    assert read["mean"].tolist() == pytest.approx([s.mean for s in results.scores], rel=1e-15)
    latex = (folder / "comparisons.tex").read_text()
    assert latex.startswith("\\begin{tabular}")
    assert "task\\_0 & exo & " in latex
    assert latex.count("\\\\") == 1 + len(results.comparisons)


def test_tables_have_an_estimate_s_ends_and_short_names(results: Results) -> None:
    found = tables(results)
    together = found["together"].iloc[0]
    assert results.across is not None
    expected = results.across.overall[0].difference
    ends = (together["difference_value"], together["difference_low"], together["difference_high"])
    assert ends == (expected.value, expected.low, expected.high)
    assert list(found["comparisons"]["task"][:2]) == ["task_0", "task_1"]
    assert list(found["tasks"]["source"]) == ["task_0", "task_1"]


def test_lines_have_a_legend_in_a_file(results: Results) -> None:
    figure = Figure(figsize=(3.7, 2.6))
    sensitivity_charts(results)[0].add_legend(figure)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == list(results.settings.activations)
    assert figure.get_figheight() == pytest.approx(2.6 + 0.2 * 3), "six names in two columns"


def test_the_command_line_writes_them(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeta.evaluate.runs.rebuild", lambda folders, out: results)
    monkeypatch.setattr("zeta.evaluate.report.write_report", lambda _: None)
    monkeypatch.setattr("zeta.evaluate.figures._figures", lambda _: {})
    run = here("report", "out", "--figures", "for paper", cwd=tmp_path)
    assert run.stdout.endswith("wrote 0 figures and 6 tables to for paper\n"), run.stderr
    assert (tmp_path / "for paper" / "scores.tex").exists()


def test_names_of_files() -> None:
    titles = ["a/b.py:t: loss", "a/b.py:t: loss", "../x", "n" * 200 + ": loss"]
    slugs = _slugs(titles)
    assert slugs[:3] == ["a-b-py-t-loss", "a-b-py-t-loss-1", "x"]
    assert len(slugs[3]) == 80
    assert slugs[3].endswith("-loss")


def test_a_folder_that_cannot_be_written_to_is_one_line(results: Results, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to '.*file': File exists"):
        write_figures(results, tmp_path / "file")
