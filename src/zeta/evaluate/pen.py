"""`Pen`: how each activation is drawn, the same in every figure, and told apart in grey too."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zeta.evaluate.results import Results

_LONGEST_LABEL = 28
# Matplotlib's markers, and the letters that legends show for them.
MARKERS = {
    "": "", "o": "●", "s": "■", "^": "▲", "v": "▼", "D": "◆", "x": "×", "+": "+", "*": "★",
    "<": "◀", ">": "▶", "p": "⬟", "h": "⬢", "P": "✚",
}  # fmt: skip
_DASHES = {"-": "solid", "--": "dashed", ":": "dotted"}


@dataclass(frozen=True)
class Palette:
    """The colours of a figure: text, axes, what lies behind text, and the activations'."""

    ink: str
    faint: str
    panel: str
    series: tuple[str, ...]


#: Of a page, in which they become CSS variables that follow light and dark.
PAGE = Palette("#010101", "#020202", "#040404", tuple(f"#0301{index:02x}" for index in range(8)))
#: Of a file: those of the page in the light.
PAPER = Palette(
    "#1c2026",
    "#9aa2ad",
    "#ffffff",
    (
        *("#c2410c", "#0b6fb8", "#15803d", "#6b7280"),
        *("#9333a8", "#a16207", "#0e7490", "#be185d"),
    ),
)


@dataclass(frozen=True)
class Style:
    """An activation's line.

    Attributes:
        series: the index of its colour in a palette.
        dash, marker: as Matplotlib spells them; "" for no marker.
    """

    series: int
    dash: str
    marker: str

    @property
    def border(self) -> str:
        """The dash as CSS calls it."""
        return _DASHES[self.dash]

    @property
    def letter(self) -> str:
        """The marker as a letter."""
        return MARKERS[self.marker]


class Pen:
    """The lines and labels of one evaluation's activations.

    Colours take turns, and with each turn the marker changes: 112 candidates and baselines look
    different. Candidates are lines, baselines dashed; a frozen twin is its candidate, dotted, and
    the control its reference.

    Args:
        results: what is drawn.
        palette: in which colours.
    """

    def __init__(self, results: Results, palette: Palette = PAGE) -> None:
        self.results, self.palette = results, palette
        self._settings = results.settings

    @cached_property
    def labels(self) -> dict[str, str]:
        """Names of activations and tasks that a plot has room for, still distinct."""
        labels: dict[str, str] = {}
        for source, name in self.results.names.items():
            label = name if len(name) <= _LONGEST_LABEL else f"…{name[1 - _LONGEST_LABEL :]}"
            while label in labels.values():
                label += "′"
            labels[source] = label
        return labels

    @cached_property
    def styles(self) -> dict[str, Style]:
        """Every activation's line."""
        twins = self._twins
        others = [name for name in self._settings.activations if name not in twins]
        turns = {name: divmod(i, len(self.palette.series)) for i, name in enumerate(others)}
        markers = list(MARKERS)
        styles = {}
        for name in self._settings.activations:
            turn, series = turns[twins.get(name, name)]
            styles[name] = Style(series, self._dash(name), markers[turn % len(markers)])
        return styles

    @property
    def _twins(self) -> dict[str, str]:
        """Whatever is drawn as another activation, dotted -> that activation."""
        settings = self._settings
        frozen = {twin: name for name, twin in settings.ablations.items()}
        return frozen | {settings.control: settings.reference}

    def _dash(self, activation: str) -> str:
        if activation in self._settings.candidates:
            return "-"
        return ":" if activation in self._twins else "--"

    def color(self, activation: str) -> str:
        """An activation's colour."""
        return self.palette.series[self.styles[activation].series]

    def line(self, activation: str, points: Sequence[Any]) -> dict[str, Any]:
        """How Matplotlib is to draw a line through so many points, some of them marked."""
        style = self.styles[activation]
        # A line through one point is none.
        marker = style.marker or ("o" if len(points) == 1 else "")
        every = max(1, len(points) // 6)
        return {
            "color": self.color(activation),
            "linestyle": style.dash,
            "marker": marker,
            "markersize": 4.5,
            "markevery": every,
        }
