"""The picture of what follows from a formula is as the code and the results have it."""

import pytest

import overview


@pytest.mark.parametrize("path", overview.files(), ids=lambda path: path.stem)
def test_the_readmes_picture_is_up_to_date(path):
    """Else run `python docs/_ext/overview.py`."""
    assert path.read_text(encoding="utf-8") == overview.files()[path]


def test_what_it_shows():
    text = overview.html()
    assert text.count("<svg viewBox") == len(overview.PARTS)
    assert "sigmoid(" in text
    assert "1.876509060410713" in text
    assert "worse on" in text
