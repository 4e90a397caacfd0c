"""What a step costs: bytes that are kept, of formulas of one input and of two."""

import pytest

from zeta import Formula
from zeta.activations import geglu, relu, silu, swiglu
from zeta.leaderboard.costs import measure_costs


@pytest.mark.parametrize(("formula", "reference", "saved"), [(relu, silu, 4), (geglu, swiglu, 8)])
def test_saved_bytes_are_those_of_the_inputs(
    formula: Formula, reference: Formula, saved: float
) -> None:
    cost = measure_costs({"f": formula}, reference)["f"]
    assert cost.saved == saved
    assert cost.time > 0
