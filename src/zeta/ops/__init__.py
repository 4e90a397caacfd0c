"""PyTorch functions.

=============================  ==============================================================
``exo``                        sigmoid gate between the identity and tanh
``learnable_selu_variation``   SELU with a sine, five parameters
``laplace``                    MEGA's attention activation
``selu_softmax``               SELU, then softmax
``sparsemax``, ``entmax15``    softmaxes with exact zeros
``sparsemax_loss``             what trains a sparsemax, in the place of cross-entropy
``entmax15_loss``              what trains an entmax15
``gated``                      a gate on one tensor that holds both of its inputs
``activated_linear``           a linear map of an activation that is not kept for backward
``linear_cross_entropy``       the loss of a softmax over a formula of linear logits
``linear_log_prob``            its log-probabilities and entropies, differentiable
``mixture_cross_entropy``      the loss of a mixture of softmaxes
``LossOptions``                what these losses take by keyword
``LossOutputs``                what they know of each token besides
``MixtureOfSoftmaxes``         the module, as in ``zeta.nn``
=============================  ==============================================================

Every further activation of the catalogue is a function on tensors as it stands, for instance
``zeta.activations.mish(x)``.
"""

from typing import TYPE_CHECKING, Any

from zeta._errors import missing_extra, refuse_upstream_beside

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("zeta.ops", "PyTorch", extra="torch") from error

from zeta._loss_options import LossOptions, LossOutputs
from zeta.activations import SELU_ALPHA, SELU_SCALE
from zeta.ops.activated_linear import activated_linear
from zeta.ops.activations import exo, laplace, learnable_selu_variation
from zeta.ops.gated import gated
from zeta.ops.linear_cross_entropy import linear_cross_entropy, linear_log_prob
from zeta.ops.mixture.cross_entropy import mixture_cross_entropy
from zeta.ops.selu_softmax import selu_softmax
from zeta.ops.sparse_softmax import entmax15, entmax15_loss, sparsemax, sparsemax_loss

# Here too: if upstream's package came last, `import zeta` runs its code, which imports `zeta.ops`.
refuse_upstream_beside()

if TYPE_CHECKING:
    from zeta.nn import MixtureOfSoftmaxes

__all__ = [
    "SELU_ALPHA",
    "SELU_SCALE",
    "LossOptions",
    "LossOutputs",
    "MixtureOfSoftmaxes",
    "activated_linear",
    "entmax15",
    "entmax15_loss",
    "exo",
    "gated",
    "laplace",
    "learnable_selu_variation",
    "linear_cross_entropy",
    "linear_log_prob",
    "mixture_cross_entropy",
    "selu_softmax",
    "sparsemax",
    "sparsemax_loss",
]


def __getattr__(name: str) -> Any:
    if name == "MixtureOfSoftmaxes":  # late, since zeta.nn is built on this package
        from zeta.nn import MixtureOfSoftmaxes

        return MixtureOfSoftmaxes
    raise AttributeError(f"module 'zeta.ops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
