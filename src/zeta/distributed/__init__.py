"""Output layers whose classes several processes share, on ``torch.distributed``.

======================================  ======================================================
``vocab_parallel``                      splits a softmax head over a device mesh
``VocabParallelMixtureOfSoftmaxes``     what it returns of a mixture of softmaxes
``VocabParallelSoftmaxHead``            what it returns of one softmax
``VocabParallelEmbedding``              the embedding tied to that, split with it
``full_state_dict``                     a model's state dict as if nothing had been split
``clip_grad_norm_``                     clips by the norm over all processes' parts
======================================  ======================================================
"""

from zeta._errors import missing_extra

try:
    import torch
except ModuleNotFoundError as error:
    raise missing_extra("zeta.distributed", "PyTorch", extra="torch") from error

if not torch.distributed.is_available():
    raise ImportError("zeta.distributed needs a PyTorch that was built with torch.distributed")

from zeta.distributed.state import clip_grad_norm_, full_state_dict
from zeta.distributed.vocab_parallel import (
    VocabParallelEmbedding,
    VocabParallelMixtureOfSoftmaxes,
    VocabParallelSoftmaxHead,
    vocab_parallel,
)

__all__ = [
    "VocabParallelEmbedding",
    "VocabParallelMixtureOfSoftmaxes",
    "VocabParallelSoftmaxHead",
    "clip_grad_norm_",
    "full_state_dict",
    "vocab_parallel",
]
