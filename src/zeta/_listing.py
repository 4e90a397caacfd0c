"""The tables of `zeta list`: a family's formulas, and what is known of them."""

import math

from rich.table import Table

from zeta._facts import Facts, summary, used_by, year
from zeta._formula import Formula
from zeta.activations import FAMILIES

TITLES = {
    "elementwise": "Elementwise: activations of fixed constants",
    "learnable": "Learnable: activations whose parameters modules train by default",
    "gated": "Gated: formulas of a gate and a value",
    "logits": "Logits: what stands between logits and a softmax",
}
NOTE = (
    "mean and gain over N(0, 1), gain = 1/√E[f²]; cost: operations forward and backward over "
    "GELU's, estimated"
)
WIDTH = 118


def table(family: str) -> Table:
    """One row for each formula of the family."""
    found = Table(title=TITLES[family], title_justify="left", title_style="bold", box=None)
    found.add_column("name", no_wrap=True)
    if family == "gated":
        for column in ("formula", "year", "used by"):
            found.add_column(column)
        for formula in FAMILIES[family].values():
            found.add_row(formula.name, summary(formula), *_origin(formula))
        return found
    for column in ("−∞", "+∞", "range", "mean", "gain", "cost"):
        found.add_column(column, justify="right", no_wrap=True)
    for column in ("shape", "year", "used by"):
        found.add_column(column)
    for formula in FAMILIES[family].values():
        facts = formula.facts()
        found.add_row(formula.name, *numbers(facts), shape(facts), *_origin(formula))
    return found


def numbers(facts: Facts) -> tuple[str, ...]:
    """Limits, range, mean, gain and cost as text.

    Example:
        >>> from zeta._listing import numbers
        >>> from zeta.activations import relu
        >>> numbers(relu.facts())
        ('0', '∞', '[0, ∞)', '0.399', '1.414', '0.2')
    """
    left, right = (
        ("(" if math.isinf(facts.least) else "["),
        (")" if math.isinf(facts.largest) else "]"),
    )
    return (
        number(facts.below),
        number(facts.above),
        f"{left}{number(facts.least)}, {number(facts.largest)}{right}",
        f"{facts.mean:.3f}".replace("-", "−"),
        f"{facts.gain:.3f}",
        f"{facts.cost:.1f}",
    )


def number(value: float | None) -> str:
    """A limit as text.

    Example:
        >>> from zeta._listing import number
        >>> number(-1.25), number(float("inf")), number(None)
        ('−1.25', '∞', 'none')
    """
    if value is None:
        return "none"
    return f"{value + 0.0:.3g}".replace("inf", "∞").replace("-", "−")


def shape(facts: Facts) -> str:
    """In words: monotone, smooth."""
    return ", ".join(filter(None, (facts.monotone, facts.smoothness)))


def _origin(formula: Formula) -> tuple[str, str]:
    return str(year(formula) or ""), used_by(formula)
