"""The store: whole files or none, corrupt ones set aside, unusable folders found at once."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from zeta._errors import UserError
from zeta.evaluate import Budget, Trial, TrialKey
from zeta.evaluate.store import TrialStore, read_trials, write_atomically

KEY = TrialKey("digits", "d", "relu", "f", 0.01, 100, "final", Budget(1, 2, 3))
TRIAL = Trial(KEY, "accuracy", "ok", 0.5, 7, (0.1,), (), {"seconds": 1.0, "step_ms": 0.5})
GROUP = [replace(TRIAL, key=replace(KEY, seed=seed)) for seed in range(4)]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, notes: list[str]) -> Iterator[TrialStore]:
    with TrialStore(tmp_path, notes.append) as store:
        yield store


def test_saved_trials_are_found_again(tmp_path: Path, notes: list[str]) -> None:
    with TrialStore(tmp_path, notes.append) as store:
        assert store.load(KEY) is None
        store.save([TRIAL])
        store.save(GROUP)
    with TrialStore(tmp_path, notes.append) as store:
        assert [store.load(trial.key) for trial in (TRIAL, *GROUP)] == [TRIAL, *GROUP]
    assert sorted(read_trials(tmp_path), key=lambda t: t.key.seed) == [*GROUP, TRIAL]
    names = {path.name for path in store.folder.iterdir()}
    files = {f"{trial.key.hex()}.json" for trial in (TRIAL, *GROUP)}
    assert names == files | {".lock", "VERSION", "index.sqlite"}
    assert not notes


@pytest.mark.parametrize("written", range(5))
def test_a_group_s_writing_is_finished_by_the_next_opening(tmp_path: Path, written: int) -> None:
    """A kill left the group's file, so many of the trials' own, and half of the next one."""
    TrialStore(tmp_path, print).close()
    folder = tmp_path / "trials"
    (folder / "x.group").write_text(json.dumps([trial.to_json() for trial in GROUP]))
    for trial in GROUP[:written]:
        (folder / f"{trial.key.hex()}.json").write_text(json.dumps(trial.to_json()))
    (folder / f".{KEY.hex()}.json.77.tmp").write_text("{ half a fi")
    with TrialStore(tmp_path, print) as store:
        assert [store.load(trial.key) for trial in GROUP] == GROUP
    assert not [*folder.glob("*.group"), *folder.glob(".*.tmp")]


def test_a_kill_before_the_group_s_file_is_whole_leaves_nothing_of_it(tmp_path: Path) -> None:
    TrialStore(tmp_path, print).close()
    half = tmp_path / "trials" / ".x.group.77.tmp"
    half.write_text(json.dumps([trial.to_json() for trial in GROUP])[:900])
    with TrialStore(tmp_path, print) as store:
        assert [store.load(trial.key) for trial in GROUP] == [None] * 4
    assert not half.exists()


def test_a_corrupt_group_file_is_set_aside(tmp_path: Path, notes: list[str]) -> None:
    TrialStore(tmp_path, print).close()
    (tmp_path / "trials" / "x.group").write_text("[{}]")
    with TrialStore(tmp_path, notes.append):
        assert "x.corrupt" in notes[0]


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
    store.close()
    path.write_text(damaged)
    store = TrialStore(store.folder.parent, notes.append)
    assert store.load(KEY) is None
    assert len(notes) == 1
    assert "set aside" in notes[0]
    assert "\n" not in notes[0]
    (aside,) = store.folder.glob("*.corrupt")
    assert aside.read_text() == damaged
    store.save([TRIAL])
    assert store.load(KEY) == TRIAL
    store.close()


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


def test_one_process_at_a_time(tmp_path: Path, store: TrialStore) -> None:
    store.save([TRIAL])
    code = "import sys; from pathlib import Path; from zeta.evaluate.store import TrialStore\n"
    code += "TrialStore(Path(sys.argv[1]), print)"
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert "UserError: another evaluation is writing to" in run.stderr.splitlines()[-1]
    store.close()
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("newer", [{"format": 3, "protocol": 0}, {"format": 2, "protocol": 999}])
def test_a_newer_version_s_folder_is_left_alone(tmp_path: Path, newer: dict[str, int]) -> None:
    with TrialStore(tmp_path, print) as store:
        store.save([TRIAL])
    (store.folder / "VERSION").write_text(json.dumps(newer))
    before = {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    for attempt in (lambda: TrialStore(tmp_path, print), lambda: read_trials(tmp_path)):
        with pytest.raises(UserError, match=r"a newer version of Zeta wrote .* update zeta-nn"):
            attempt()
    assert {path: path.stat().st_mtime_ns for path in store.folder.iterdir()} == before


def test_a_damaged_version(tmp_path: Path) -> None:
    TrialStore(tmp_path, print).close()
    (tmp_path / "trials" / "VERSION").write_text("?")
    with pytest.raises(UserError, match=r"VERSION' is damaged; delete it"):
        TrialStore(tmp_path, print)


def test_reading_leaves_out_what_is_no_trial(tmp_path: Path) -> None:
    with TrialStore(tmp_path, print) as store:
        store.save([TRIAL])
        old = replace(TRIAL, key=replace(KEY, protocol=0))
        store.save([old])
        (store.folder / "damaged.json").write_text("{")
    assert read_trials(tmp_path) == [TRIAL]
    assert (store.folder / "damaged.json").exists()


def test_a_folder_that_is_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=r"cannot read '.*VERSION': Too many levels"):
        TrialStore(tmp_path / "loop", print)
