"""A mixture of softmaxes whose classes several processes share."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from zeta.nn import MixtureOfSoftmaxes
from zeta.ops.mixture import shard as shards
from zeta.ops.mixture.shard import Shard

# Which dimension of a parameter holds the classes, in either decoder.
CLASS_DIM = {"weight": -2, "bias": -1}


def vocab_parallel(module: MixtureOfSoftmaxes, mesh: DeviceMesh) -> VocabParallelMixtureOfSoftmaxes:
    """Split a mixture's classes over the processes of a mesh.

    Each of P processes keeps, differentiates and updates V / P classes' rows of the decoder, the
    first ones one more where P does not divide V. The prior and the latent layer stay whole on
    every process, with the values that the mesh's first process has.

    Args:
        module: the whole mixture, whose prior and latent layer are used, not copied. On the meta
            device it takes no memory: then ``to_empty`` and ``load_state_dict`` (or
            ``reset_parameters``) fill the parts.
        mesh: of one dimension, for instance ``init_device_mesh("cpu", (2,))``, or one dimension
            of a larger one, ``mesh["vocab"]``, with FSDP2 or DDP on the other.

    Raises:
        TypeError: something else than a whole MixtureOfSoftmaxes, or than a mesh.
        ValueError: a mesh of several dimensions, or of more processes than there are classes.

    Example, of one process (under ``torchrun``, ``init_process_group("gloo")`` finds the others):
        >>> import torch
        >>> import torch.distributed as dist
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from zeta.distributed import vocab_parallel
        >>> from zeta.nn import MixtureOfSoftmaxes
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        >>> head = vocab_parallel(MixtureOfSoftmaxes(4, 64, 10_000, decoder="shared"), mesh)
        >>> loss = head.loss(torch.ones(8, 64), torch.arange(8))  # the same on every process
        >>> dist.destroy_process_group()

    Source: Shoeybi et al. 2019, Megatron-LM, which splits one softmax so.
    """
    if not isinstance(module, MixtureOfSoftmaxes) or module.shard is not None:
        kind = type(module).__name__
        raise TypeError(f"vocab_parallel: module must be a whole MixtureOfSoftmaxes, got {kind}")
    if not isinstance(mesh, DeviceMesh):
        raise TypeError(f"vocab_parallel: mesh must be a DeviceMesh, got {type(mesh).__name__}")
    if mesh.ndim != 1:
        raise ValueError(
            f"vocab_parallel: mesh must have one dimension, got {mesh.ndim}; "
            'take one of them, for instance mesh["vocab"]'
        )
    if mesh.size() > module.num_classes:
        raise ValueError(
            f"vocab_parallel: {mesh.size()} processes cannot share {module.num_classes} classes"
        )
    return VocabParallelMixtureOfSoftmaxes(module, mesh)


class VocabParallelMixtureOfSoftmaxes(MixtureOfSoftmaxes):
    """A part of a mixture's classes; made by :func:`vocab_parallel`.

    It takes the calls of :class:`zeta.nn.MixtureOfSoftmaxes` and gives the same results on every
    process. All processes of the mesh must call together, with the same ``x`` and target.
    ``loss`` and ``log_prob(x, target)`` are differentiable; ``forward`` and ``log_prob(x)``, which
    gather (…, V) numbers on every process, and ``topk`` are for inference.

    A state dict of the whole module loads. :func:`zeta.distributed.full_state_dict` makes one.

    Attributes:
        weight, bias: of this process's classes.
        shard: which these are.

    Source: as :func:`vocab_parallel`.
    """

    shard: Shard

    def __init__(self, whole: MixtureOfSoftmaxes, mesh: DeviceMesh) -> None:
        super().__init__(
            whole.num_mixtures,
            whole.input_size,
            whole.num_classes,
            decoder=whole.decoder,
            device="meta",
        )
        quotient, rest = divmod(whole.num_classes, mesh.size())
        sizes = tuple(quotient + (rank < rest) for rank in range(mesh.size()))
        self.shard = Shard(mesh.get_local_rank(), sizes, mesh.get_group().group_name)
        self.prior, self.latent = whole.prior, whole.latent
        self.dropout = _SameDropout(whole.dropout.p, self.shard)
        for name in CLASS_DIM:
            parameter = getattr(whole, name)
            if parameter is not None:
                parameter = nn.Parameter(self._own(name, parameter), parameter.requires_grad)
            setattr(self, name, parameter)
        self.train(whole.training)
        self.register_load_state_dict_pre_hook(_cut_state_dict)
        self._share_replicated()
        self._note_start()

    def reset_parameters(self) -> None:
        """Draw every weight anew: the shared ones alike on all processes, each class's its own."""
        if self.weight.is_meta:
            return
        with torch.random.fork_rng(devices=[self.weight.device] if self.weight.is_cuda else []):
            _, own = shards.generators(self.shard, None, self.weight.device)
            torch.manual_seed(own.initial_seed())
            super().reset_parameters()
        self._share_replicated()

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return f"{super().extra_repr()}, classes={self.shard.start}:{self.shard.stop}"

    def _own(self, name: str, whole: Tensor) -> Tensor:
        """This process's classes of a whole parameter."""
        size = self.shard.stop - self.shard.start
        return whole.detach().narrow(CLASS_DIM[name], self.shard.start, size).clone()

    def _share_replicated(self) -> None:
        latent = [] if self.latent is None else self.latent.parameters()
        for parameter in itertools.chain(self.prior.parameters(), latent):
            if not parameter.is_meta:
                group = shards.process_group(self.shard.group)
                dist.broadcast(parameter.detach(), group=group, group_src=0)


class _SameDropout(nn.Dropout):
    """Drops the same features on every process, as the first one's generator says."""

    def __init__(self, p: float, shard: Shard) -> None:
        super().__init__(p)
        self.shard = shard

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        alike, _ = shards.generators(self.shard, None, input.device)
        kept = torch.empty_like(input).bernoulli_(1 - self.p, generator=alike)
        return input * kept / (1 - self.p) if self.p < 1 else input * kept


def _cut_state_dict(
    module: VocabParallelMixtureOfSoftmaxes, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Replace a whole module's parameters by this process's part of them, in place."""
    for name, dim in CLASS_DIM.items():
        value = state_dict.get(prefix + name)
        if value is not None and value.shape[dim] == module.num_classes != 1:
            state_dict[prefix + name] = module._own(name, value)
