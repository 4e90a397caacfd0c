"""Generated pages: written when they change, removed when they are no longer made; their text."""

import re
from collections.abc import Mapping
from pathlib import Path


def write_pages(folder: Path, pages: Mapping[str, str]) -> None:
    """Make the folder hold exactly these files, leaving unchanged ones untouched.

    Sphinx reads a page again if it is newer than what it knows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.iterdir() if path.is_file()} - set(pages):
        (folder / stale).unlink()
    for name, content in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def bars_escaped(text: str) -> str:
    """reStructuredText in which |x| is no substitution, but for what is in backticks."""
    return re.sub(r"(`+[^`]+`+)|\|(?=\S)", lambda found: found[1] or r"\|", text)
