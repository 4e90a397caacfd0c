"""The store: whole files or none, corrupt ones set aside, unwritable folders found at once."""

import json
from pathlib import Path

import pytest

from zeta._errors import UserError
from zeta.evaluate import Budget, Trial, TrialKey
from zeta.evaluate.store import TrialStore, write_atomically

KEY = TrialKey("digits", "d", "relu", "f", 0.01, 100, "final", Budget(1, 2, 3))
TRIAL = Trial(KEY, "accuracy", "ok", 0.5, 7, (0.1,), (), {"seconds": 1.0, "step_ms": 0.5})


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, notes: list[str]) -> TrialStore:
    return TrialStore(tmp_path, notes.append)


def test_saved_trials_are_found_again(tmp_path: Path, store: TrialStore) -> None:
    assert store.load(KEY) is None
    assert store.is_empty()
    store.save([TRIAL])
    assert TrialStore(tmp_path, print).load(KEY) == TRIAL
    assert [p.name for p in store.folder.iterdir()] == [f"{KEY.hex()}.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace("0.5", "0.5x"),
        lambda text: text.replace('"relu"', '"gelu"'),
        lambda text: text.replace("0.5", "NaN"),
        lambda text: text.replace("seconds", "hours"),
        lambda text: text.replace("0.1", '"a", "b"'),
        lambda text: text.replace('"learned": []', '"learned": ["a"]'),
        lambda text: "[" * 100_000,
    ],
)
def test_corrupt_file_is_set_aside_and_reported(
    store: TrialStore, notes: list[str], damage: object
) -> None:
    store.save([TRIAL])
    path = store.folder / f"{KEY.hex()}.json"
    damaged = damage(path.read_text())
    path.write_text(damaged)
    assert store.load(KEY) is None
    assert len(notes) == 1
    assert "set aside" in notes[0]
    assert "\n" not in notes[0]
    (aside,) = store.folder.glob("*.corrupt")
    assert aside.read_text() == damaged
    store.save([TRIAL])
    assert store.load(KEY) == TRIAL


def test_a_folder_in_a_file_s_place_is_set_aside(store: TrialStore, notes: list[str]) -> None:
    path = store.folder / f"{KEY.hex()}.json"
    for _ in range(2):
        path.mkdir()
        (path / "something").write_text("")
        assert store.load(KEY) is None
    assert not path.exists()
    assert len(list(store.folder.glob("*.corrupt"))) == len(notes) == 2
    assert "set aside" in notes[0]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/out.*Not a directory"):
        TrialStore(tmp_path / "file" / "out", print)


def test_stored_json_is_strict(store: TrialStore) -> None:
    store.save([TRIAL])
    stored = json.loads((store.folder / f"{KEY.hex()}.json").read_text())
    assert stored["key"] == KEY.hex()
    assert stored["timing"] == {"seconds": 1.0, "step_ms": 0.5}
