"""Softmax heads whose classes several processes share, and an embedding tied to one."""

from __future__ import annotations

from typing import Any, overload

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.library import define, impl, register_autograd, register_fake

from zeta.kernels.support import is_eager
from zeta.nn import MixtureOfSoftmaxes, SoftmaxHead
from zeta.nn._wrappers import ties
from zeta.nn.head import Head
from zeta.ops.mixture import shard as shards
from zeta.ops.mixture.inference import Mixture
from zeta.ops.mixture.shard import Shard

# Which dimension of a parameter holds the classes, in either decoder.
CLASS_DIM = {"weight": -2, "bias": -1}

# As an operator, which compilers take as it is. What follows the sum is alike on all processes, and
# so is its gradient.
_SUM = "zeta::sum_over_processes"
define(_SUM, "(Tensor part, str group) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
impl(_SUM, "default", lambda part, group: shards.total(group, part)[0])
register_fake(_SUM, lambda part, group: torch.empty_like(part))
register_autograd(_SUM, lambda ctx, gradient: (gradient, None))

_TIED = "vocab_parallel(head, mesh, embedding) splits a head and the embedding it is tied to"


@overload
def vocab_parallel(
    module: MixtureOfSoftmaxes, mesh: DeviceMesh, embedding: None = None
) -> VocabParallelMixtureOfSoftmaxes: ...


@overload
def vocab_parallel(
    module: MixtureOfSoftmaxes, mesh: DeviceMesh, embedding: nn.Embedding
) -> tuple[VocabParallelMixtureOfSoftmaxes, VocabParallelEmbedding]: ...


@overload
def vocab_parallel(
    module: SoftmaxHead, mesh: DeviceMesh, embedding: None = None
) -> VocabParallelSoftmaxHead: ...


@overload
def vocab_parallel(
    module: SoftmaxHead, mesh: DeviceMesh, embedding: nn.Embedding
) -> tuple[VocabParallelSoftmaxHead, VocabParallelEmbedding]: ...


def vocab_parallel(
    module: MixtureOfSoftmaxes | SoftmaxHead,
    mesh: DeviceMesh,
    embedding: nn.Embedding | None = None,
) -> Any:
    """Split a head's classes over the processes of a mesh.

    Each of P processes keeps, differentiates and updates V / P classes' rows of the decoder, the
    first ones one more where P does not divide V. A mixture's prior and latent layer, and the
    parameters of a formula of the logits, stay whole on every process, with the values that the
    mesh's first process has.

    Args:
        module: the whole head, of which what stays whole is used, not copied. On the meta
            device it takes no memory: then ``to_empty`` and ``load_state_dict`` (or
            ``reset_parameters``) fill the parts.
        mesh: of one dimension, for instance ``init_device_mesh("cpu", (2,))``, or one dimension
            of a larger one, ``mesh["vocab"]``, with FSDP2 or DDP on the other.
        embedding: the one that the decoder is tied to, if it is. It is split too: both share the
            part, and stay tied.

    Returns:
        The split head; with an embedding, that and the split embedding.

    Raises:
        TypeError: something else than a whole MixtureOfSoftmaxes or SoftmaxHead, a mesh, and an
            ``nn.Embedding``: subclasses and parametrised modules compute something else.
        ValueError: a mesh of several dimensions, or of more processes than there are classes; a
            decoder that is another module's parameter too, however it was tied, or is not the
            embedding's; hooks on either, which the parts would not have; an embedding with
            max_norm, scale_grad_by_freq or sparse.

    Example, of one process (under ``torchrun``, ``init_process_group("gloo")`` finds the others):
        >>> import torch
        >>> import torch.distributed as dist
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from zeta.distributed import vocab_parallel
        >>> from zeta.nn import MixtureOfSoftmaxes, SoftmaxHead
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        >>> head = vocab_parallel(MixtureOfSoftmaxes(4, 64, 10_000, decoder="shared"), mesh)
        >>> loss = head.loss(torch.ones(8, 64), torch.arange(8))  # the same on every process
        >>> dist.destroy_process_group()

    Source: Shoeybi et al. 2019, Megatron-LM, which splits one softmax so.
    """
    if type(module) not in (MixtureOfSoftmaxes, SoftmaxHead):
        raise TypeError(
            "vocab_parallel: module must be a whole MixtureOfSoftmaxes or SoftmaxHead, "
            f"got {type(module).__name__}"
        )
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
    _check_hooks(module, embedding)
    _check_tie(module, embedding)
    head: VocabParallelMixtureOfSoftmaxes | VocabParallelSoftmaxHead
    if isinstance(module, MixtureOfSoftmaxes):
        head = VocabParallelMixtureOfSoftmaxes(module, mesh)
    else:
        head = VocabParallelSoftmaxHead(module, mesh)
    return head if embedding is None else (head, VocabParallelEmbedding(embedding, head))


def _check_hooks(*modules: nn.Module | None) -> None:
    """Raise where hooks would be lost in silence."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    for module in modules:
        if any(getattr(module, kind, None) for kind in kinds):
            raise ValueError(
                f"vocab_parallel: the hooks of this {type(module).__name__} would be lost; "
                "register them on what is returned"
            )


def _check_tie(module: Head, embedding: nn.Embedding | None) -> None:
    """Raise where splitting would untie the decoder, or change what the embedding computes."""
    if embedding is not None:
        if type(embedding) is not nn.Embedding:
            kind = type(embedding).__name__
            raise TypeError(f"vocab_parallel: embedding must be nn.Embedding itself, got {kind}")
        if embedding.weight is not module.weight:
            raise ValueError(
                "vocab_parallel: the head is not tied to this embedding: "
                "head.tie_weights(embedding) comes first"
            )
        if embedding.max_norm is not None or embedding.scale_grad_by_freq or embedding.sparse:
            raise ValueError(
                "vocab_parallel: an embedding with max_norm, scale_grad_by_freq or sparse "
                "cannot be split"
            )
    for name, other in ties(module, CLASS_DIM):
        if other is not embedding:
            raise ValueError(
                f"vocab_parallel: the head's {name} is tied to {type(other).__name__}'s, and would "
                f"not be any more; {_TIED}, and what else it is tied to must be untied first: "
                f"head.{name} = nn.Parameter(head.{name}.detach().clone())"
            )


class _Part(Head):
    """What a part of a head's classes does otherwise than the whole head."""

    shard: Shard

    def _split(self, whole: Head, mesh: DeviceMesh) -> None:
        """Take this process's classes, and all that is no class's own."""
        quotient, rest = divmod(whole.num_classes, mesh.size())
        sizes = tuple(quotient + (rank < rest) for rank in range(mesh.size()))
        self.shard = Shard(mesh.get_local_rank(), sizes, mesh.get_group().group_name)
        for name, child in whole.named_children():
            setattr(self, name, child)
        self.dropout = _SameDropout(whole.dropout.p, self.shard)
        for name in CLASS_DIM:
            parameter = getattr(whole, name)
            if parameter is not None:
                part = _own_classes(self.shard, name, parameter)
                parameter = nn.Parameter(part, parameter.requires_grad)
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

    def tie_weights(self, embedding: nn.Embedding) -> None:
        """Make the decoder use a split embedding's part, as after ``to_empty``.

        Raises:
            ValueError: the decoder is separate, or the embedding has another shape or is whole.
        """
        self._check_part(embedding.weight)
        super().tie_weights(embedding)

    def _mixture(self, x: Tensor) -> Mixture:
        self._check_part(self.weight)
        return super()._mixture(x)

    def _check_part(self, weight: Tensor) -> None:
        """A whole weight would be taken for this process's part."""
        here = self.shard.stop - self.shard.start
        if weight.shape[-2] != here:
            raise ValueError(
                f"{type(self).__name__}: weight must have the {here} classes of this process, "
                f"got {weight.shape[-2]}; {_TIED}"
            )

    def _share_replicated(self) -> None:
        for child in self.children():
            for parameter in child.parameters():
                if not parameter.is_meta:
                    group = shards.process_group(self.shard.group)
                    dist.broadcast(parameter.detach(), group=group, group_src=0)


class VocabParallelMixtureOfSoftmaxes(_Part, MixtureOfSoftmaxes):
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

    def __init__(self, whole: MixtureOfSoftmaxes, mesh: DeviceMesh) -> None:
        super().__init__(
            whole.num_mixtures,
            whole.input_size,
            whole.num_classes,
            decoder=whole.decoder,
            logits=whole.logits,
            device="meta",
        )
        self._split(whole, mesh)


class VocabParallelSoftmaxHead(_Part, SoftmaxHead):
    """A part of a softmax head's classes; made by :func:`vocab_parallel`.

    It takes the calls of :class:`zeta.nn.SoftmaxHead`, as
    :class:`VocabParallelMixtureOfSoftmaxes` takes those of a mixture.

    Attributes:
        weight, bias: of this process's classes.
        shard: which these are.

    Source: as :func:`vocab_parallel`.
    """

    def __init__(self, whole: SoftmaxHead, mesh: DeviceMesh) -> None:
        super().__init__(whole.input_size, whole.num_classes, logits=whole.logits, device="meta")
        self._split(whole, mesh)


class VocabParallelEmbedding(nn.Embedding):
    """A part of an embedding's rows, the decoder of a split head.

    Made by :func:`vocab_parallel`. ``Σ_process [class is here] · weight_class``: each process looks
    up its own classes, and the sum over all gives every process the whole embedding's result. All
    processes of the mesh must call together, with the same classes.

    A state dict of the whole embedding loads. :func:`zeta.distributed.full_state_dict` makes one.

    Attributes:
        weight: (own classes, D), the very parameter of the head.
        shard: which classes these are.

    Shape: class indices (…), int32 or int64; output (…, D).

    Raises:
        IndexError: an index that is no class (checked on CPU).

    Source: as :func:`vocab_parallel`.
    """

    def __init__(self, whole: nn.Embedding, head: _Part) -> None:
        super().__init__(
            whole.num_embeddings, whole.embedding_dim, whole.padding_idx, device="meta"
        )
        self.shard = head.shard
        self.weight = head.weight
        self.train(whole.training)
        self.register_load_state_dict_pre_hook(_cut_state_dict)

    def reset_parameters(self) -> None:
        """Draw this process's rows anew, standard normal as ``nn.Embedding`` does."""
        if self.weight.is_meta:
            return
        _, own = shards.generators(self.shard, None, self.weight.device)
        with torch.no_grad():
            self.weight.normal_(generator=own)
            if (padding := self._padding_here()) is not None:
                self.weight[padding] = 0

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the classes."""
        self._check(input)
        here = (input >= self.shard.start) & (input < self.shard.stop)
        rows = F.embedding(
            (input - self.shard.start).masked_fill(~here, 0), self.weight, self._padding_here()
        )
        rows = rows.masked_fill(~here.unsqueeze(-1), 0)
        total: Tensor = torch.ops.zeta.sum_over_processes(rows, self.shard.group)
        return total

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return f"{super().extra_repr()}, classes={self.shard.start}:{self.shard.stop}"

    def _padding_here(self) -> int | None:
        """The row of ``padding_idx``, if it is one of this process's."""
        start, stop = self.shard.start, self.shard.stop
        if self.padding_idx is None or not start <= self.padding_idx < stop:
            return None
        return self.padding_idx - start

    def _check(self, input: Tensor) -> None:
        """All processes raise alike: one alone would leave the others waiting for its rows."""
        if input.device.type == "cpu" and is_eager():
            bad = (input < 0) | (input >= self.num_embeddings)
            if bad.any():
                raise IndexError(
                    f"{type(self).__name__}: index {int(input[bad][0])} is out of range for "
                    f"{self.num_embeddings} classes"
                )


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


def _own_classes(shard: Shard, name: str, whole: Tensor) -> Tensor:
    """This process's classes of a whole parameter."""
    size = shard.stop - shard.start
    return whole.detach().narrow(CLASS_DIM[name], shard.start, size).clone()


def _cut_state_dict(
    module: _Part | VocabParallelEmbedding,
    state_dict: dict[str, Any],
    prefix: str,
    *_: Any,
) -> None:
    """Replace a whole module's parameters by this process's part of them, in place."""
    shard = module.shard
    for name, dim in CLASS_DIM.items():
        value = state_dict.get(prefix + name)
        if value is not None and value.shape[dim] == shard.num_classes != 1:
            state_dict[prefix + name] = _own_classes(shard, name, value)
