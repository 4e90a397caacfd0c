"""Generated files: stale ones go, unchanged ones stay untouched."""

import pytest

from pages import bars_escaped, write_pages


def test_write_pages(tmp_path):
    folder = tmp_path / "new"
    write_pages(folder, {"a.md": "one", "b.md": "two"})
    before = (folder / "a.md").stat().st_mtime_ns
    (folder / "images").mkdir()
    write_pages(folder, {"a.md": "one", "c.md": "three"})
    assert {path.name for path in folder.iterdir()} == {"a.md", "c.md", "images"}
    assert (folder / "a.md").stat().st_mtime_ns == before
    write_pages(folder, {"a.md": "other"})
    assert (folder / "a.md").read_text() == "other"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("x where |x| > 1", r"x where \|x| > 1"),
        ("``|x|`` or `|x|`, |c - |x||", r"``|x|`` or `|x|`, \|c - \|x\||"),
        ("int | None", "int | None"),
    ],
)
def test_bars(text, escaped):
    assert bars_escaped(text) == escaped
