"""The index: whatever happens to it, the JSON files decide."""

import json
import sqlite3
from pathlib import Path

import pytest

from zeta.evaluate.store.index import Index

TEXT = json.dumps({"task": "digits", "value": 0.5})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(TEXT)
    return tmp_path


def indexed(folder: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "index.sqlite") as connection:
        rows = connection.execute("SELECT key, task, value FROM trials ORDER BY key").fetchall()
    connection.close()
    return rows


def open_and_close(folder: Path) -> None:
    Index(folder / "index.sqlite", folder).close()


def test_a_missing_index_is_built(folder: Path) -> None:
    open_and_close(folder)
    assert indexed(folder) == [("a", "digits", 0.5), ("b", "digits", 0.5)]


def test_a_stale_index_follows_the_files(folder: Path) -> None:
    open_and_close(folder)
    (folder / "a.json").unlink()
    (folder / "b.json").write_text(TEXT.replace("0.5", "0.6"))  # of the same length
    (folder / "c.json").write_text(TEXT)
    open_and_close(folder)
    assert indexed(folder) == [("b", "digits", 0.6), ("c", "digits", 0.5)]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_corrupt_index_is_built_anew(folder: Path, content: bytes) -> None:
    open_and_close(folder)
    (folder / "index.sqlite").write_bytes(content)
    index = Index(folder / "index.sqlite", folder)
    assert index.read("a") == TEXT
    index.close()
    assert len(indexed(folder)) == 2


def test_a_changed_byte_within_a_document_is_noticed(folder: Path) -> None:
    open_and_close(folder)
    path = folder / "index.sqlite"
    damaged = path.read_bytes().replace(b'"value": 0.5', b'"value": 0.7')
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    index = Index(path, folder)
    assert index.read("a") is None, "the file is asked then"
    index.close()


def test_another_version_s_index_is_built_anew(folder: Path) -> None:
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.executescript("CREATE TABLE trials (other TEXT); PRAGMA user_version = 99")
    connection.close()
    open_and_close(folder)
    assert len(indexed(folder)) == 2


def test_where_sqlite_cannot_write_the_index_is_in_memory(folder: Path) -> None:
    (folder / "index.sqlite").mkdir()
    (folder / "index.sqlite" / "something").write_text("")
    index = Index(folder / "index.sqlite", folder)
    assert index.read("a") == TEXT
    index.close()


def test_what_is_no_json_is_not_indexed(folder: Path) -> None:
    (folder / "a.json").write_text("{")
    (folder / "b.json").write_bytes(b"\xff\xfe")
    (folder / "folder.json").mkdir()
    index = Index(folder / "index.sqlite", folder)
    assert [index.read(key) for key in ("a", "b", "folder", "none")] == [None] * 4
    index.close()


def test_files_written_and_set_aside_later(folder: Path) -> None:
    index = Index(folder / "index.sqlite", folder)
    (folder / "c.json").write_text(TEXT)
    index.add({"c": TEXT})
    index.remove("a")
    assert (index.read("c"), index.read("a")) == (TEXT, None)
    index.close()
