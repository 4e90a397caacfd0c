"""The benchmark's harness, on small sizes; its figures are measured by hand."""

import json
import shutil

import pytest
import torch

from zeta import activations, bench
from zeta._errors import UnknownNameError, UserError


@pytest.fixture(scope="module")
def results():
    return bench.run(["learnable_selu_variation"], [2**10], ["float32"], rounds=3)


def test_every_provider_in_every_cell(results):
    assert {row.setting.mode for row in results.rows} == set(bench.MODES)
    assert len(results.rows) == len(bench.MODES) * 6
    for row in results.rows:
        assert 0 < row.p20 <= row.p50 <= row.p80
        if row.provider == bench.RIVAL:
            assert row.ratio == 1


def test_what_is_saved_for_backward(results):
    """The input's four bytes, and five scalars; the eager formula keeps several inputs more."""
    saved = {row.provider: row.saved for row in results.rows if row.setting.mode == "both"}
    assert 4 <= saved[bench.OURS] < 4.1
    assert saved["eager"] > 3 * saved[bench.OURS]
    assert saved["copy"] == 0


def test_inductor_is_asked_for_nothing_that_a_bare_machine_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no openssl
    options = bench._inductor_options()
    assert options == {"cpp_cache_precompile_headers": False}
    torch.compile(lambda x: x, options=options)  # which refuses what Inductor does not know
    monkeypatch.undo()
    assert bench._inductor_options() == ({} if shutil.which("openssl") else options)


def test_table_plot_and_json(results, tmp_path):
    assert bench.table(results).row_count == len(bench.MODES)
    bench.plot(results, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    rows = json.loads(results.to_json())["rows"]
    assert rows[0]["setting"]["activation"] == "learnable_selu_variation"


def test_summary_is_the_geometric_mean_and_the_worst(results):
    assert bench.summarise(results) == []  # no size from 2^16 up was run
    for summary in bench.summarise(results, at_least=1):
        ratios = [
            row.ratio
            for row in results.rows
            if row.provider == bench.OURS and row.setting.mode == summary.mode
        ]
        assert summary.mean == pytest.approx(ratios[0])
        assert summary.worst == max(ratios)


def test_inputs_have_what_the_documents_learn():
    setting = bench.Setting("exo", 8, "bfloat16", "both")
    assert [t.dtype for t in bench.make_inputs(activations.exo, setting)] == [torch.bfloat16]
    learned = bench.make_inputs(activations.learnable_selu_variation, setting)
    assert len(learned) == 6
    assert all(t.requires_grad for t in learned)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'exo'"):
        bench.run(["exoo"])
    with pytest.raises(UserError, match=r"names of the catalogue only, got 'mine\.py:f'"):
        bench.run(["mine.py:f"])


def test_a_plot_of_no_known_format_is_refused(results, tmp_path):
    with pytest.raises(UserError, match="the suffix must be one of"):
        bench.plot(results, tmp_path / "plot.xyz")
