"""The trial of mixtures: what it compares starts alike, and an interruption changes no number."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from zeta.nn import MixtureOfSoftmaxes

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mixture_trial.py"
SPEC = importlib.util.spec_from_file_location("mixture_trial", SCRIPT)
trial = importlib.util.module_from_spec(SPEC)
sys.modules["mixture_trial"] = trial  # dataclasses look their module up
SPEC.loader.exec_module(trial)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return trial.Language(trial.QUICK["language"], tmp_path_factory.mktemp("trial"))


# ---- What is compared ---------------------------------------------------------------------------


@pytest.mark.slow
def test_every_contender_goes_on_from_the_same_loss(language):
    base, _ = language.base(seed=0)
    losses = {}
    for c in trial.LANGUAGE:
        model = trial.branch(language.sizes, base, c, seed=0)
        losses[c.name] = model.mean_loss(language.text["validation"], language.sizes.length)
    del losses["sigsoftmax"]  # another function of the same logits
    assert losses == {name: pytest.approx(losses["one softmax"], abs=1e-3) for name in losses}


def test_wider_heads_can_learn_from_their_new_features(language):
    base, _ = language.base(seed=0)
    model = trial.branch(language.sizes, base, trial.WIDER[0], seed=0)
    words_BL = language.text["validation"][:9].unsqueeze(0)
    model.head.loss(model(words_BL[:, :-1]), words_BL[:, 1:]).backward()
    assert model.head.weight.grad[:, -1].any()


def test_rates_follow_what_from_head_scaled():
    one = trial.SoftmaxHead(8, 20)
    mixture = MixtureOfSoftmaxes.from_head(one, 3)
    peaks = {group["params"][0]: group["peak"] for group in trial.groups(mixture, 0.1, mixture)}
    assert peaks[mixture.weight] == pytest.approx(3.2, rel=0.01)
    assert peaks[mixture.latent.weight] == pytest.approx(0.1 / 32, rel=0.01)
    assert peaks[mixture.bias] == peaks[mixture.prior.weight] == 0.1


def test_rank_exceeds_what_one_softmax_has():
    sizes = trial.QUICK["teacher"]
    found = trial.ranks(sizes, seed=0)
    assert found["rank"] > sizes.features + 2
    assert found["left"] > 0.1


def test_use_of_components():
    teacher = trial.teacher_of(trial.QUICK["teacher"], seed=0)
    x_ND, target_N = torch.randn(50, 3), torch.randint(40, (50,))
    used = trial.usage(teacher, x_ND, target_N)
    assert sum(used["prior"]) == pytest.approx(1) == sum(used["responsibility"])
    assert used["divergence"] > 0.1
    teacher.latent.weight.zero_()  # all components alike
    teacher.latent.bias.zero_()
    same = trial.usage(teacher, x_ND, target_N)
    assert same["divergence"] == pytest.approx(0, abs=1e-5)
    assert same["responsibility"] == pytest.approx(same["prior"])
    assert trial.usage(trial.SoftmaxHead(3, 40), x_ND, target_N) == {}


@pytest.mark.parametrize(
    ("losses", "flat"),
    [
        ([3, 2, 2, 2], False),  # too few
        ([3, 2, 2, 2, 2], True),
        ([3, 2, 2, 2, 1.5], False),
        ([3, 2, 2.1, 2.1, 2.1], True),
    ],
)
def test_flat_is_no_gain_in_three_validations(losses, flat):
    curve = [(step, 0.0, loss) for step, loss in enumerate(losses)]
    assert trial.is_flat(curve, 0.1) is flat
    assert not trial.is_flat(curve, 0)


# ---- Interruptions ------------------------------------------------------------------------------


def numbers(out):
    """All results but the seconds."""
    return without_seconds(json.loads((out / "results.json").read_text()))


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(v) for key, v in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], list) and len(value[0]) == 3:
        return [(step, loss) for step, _, loss in value]
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


def test_interrupted_many_times_it_ends_with_the_same_numbers(tmp_path, monkeypatch, capsys):
    def run(out):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--quick", "--out", str(out)])
        trial.main()

    monkeypatch.setattr(trial, "SEEDS", (0, 1))
    for part in ("TEACHER", "LANGUAGE"):
        monkeypatch.setattr(trial, part, (trial.ONE, *trial.MIXED))
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    run(whole)
    assert "| mixture of 4 |" in (whole / "results.md").read_text()
    assert "<svg" in (whole / "mixture_trial.svg").read_text()
    pieces.mkdir()
    shutil.copy(whole / "costs.json", pieces)  # measured, and so not twice the same

    write, calls = trial.write_atomically, 0

    def stop_now_and_then(file, content):
        nonlocal calls
        calls += 1
        if calls % 30 == 0:
            raise KeyboardInterrupt
        write(file, content)
        if calls % 30 == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(trial, "write_atomically", stop_now_and_then)
    stops = 0
    while not (pieces / "results.md").exists():
        try:
            run(pieces)
        except KeyboardInterrupt:
            stops += 1
    assert stops > 4
    assert numbers(pieces) == numbers(whole)


@pytest.mark.slow
def test_killed_it_ends_with_the_same_numbers(tmp_path, clean_env):
    def start(out):
        command = [sys.executable, SCRIPT, "--quick", "--out", out]
        return subprocess.Popen(command, env=clean_env, stdout=subprocess.DEVNULL)

    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert start(whole).wait(300) == 0
    pieces.mkdir()
    shutil.copy(whole / "costs.json", pieces)
    for kind in ("teacher", "language"):
        process = start(pieces)
        while process.poll() is None:
            if list(pieces.glob(f"{kind}-*.json")) and list(pieces.glob(f"{kind}-*.pt")):
                break
            time.sleep(0.002)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    assert start(pieces).wait(300) == 0
    assert numbers(pieces) == numbers(whole)
