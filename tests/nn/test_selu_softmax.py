"""SELUSoftmax."""

import torch

from zeta.nn import SELUSoftmax
from zeta.ops import selu_softmax


def test_is_the_function_over_the_last_dimension():
    x = torch.randn(3, 4)
    assert torch.equal(SELUSoftmax()(x), selu_softmax(x, -1))
    assert torch.equal(SELUSoftmax(dim=0)(x), selu_softmax(x, 0))
    assert repr(SELUSoftmax()) == "SELUSoftmax(dim=-1)"
