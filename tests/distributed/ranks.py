"""One process of several: a split or wrapped mixture against the whole one, which all of them have.

Run by test_vocab_parallel.py as ``python ranks.py RANK WORLD FILE SCENARIO…``; says which held.
"""

import copy
import gc
import sys

import pytest
import scipy.stats
import torch
import torch.distributed as dist
import wrappers
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from zeta import activations
from zeta.distributed import clip_grad_norm_, full_state_dict, vocab_parallel
from zeta.nn import MixtureOfSoftmaxes, SoftmaxHead
from zeta.ops.mixture import shard as shards

K, D, V, N = 3, 8, 507, 20
OPTIONS = [
    {},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"reduction": "none", "class_weight": torch.linspace(0.5, 2, V, dtype=torch.float64)},
    {
        "label_smoothing": 0.2,
        "class_weight": torch.linspace(0.5, 2, V, dtype=torch.float64),
        "max_chunk_bytes": 3 * K * V * 8,
    },
]


def make(decoder, **options):
    """The whole mixture, alike on all processes; some of it zero-mean and large."""
    torch.manual_seed(1)
    mixture = MixtureOfSoftmaxes(K, D, V, decoder=decoder, dtype=torch.float64, **options)
    with torch.no_grad():
        mixture.weight.mul_(8)
    return mixture


def data():
    torch.manual_seed(2)
    x = torch.randn(4, N // 4, D, dtype=torch.float64, requires_grad=True)
    target = torch.randint(V, (4, N // 4))
    target[1, 2] = -100
    return x, target


def own(head, name, whole):
    """This process's part of a whole parameter's gradient."""
    dim = {"weight": -2, "bias": -1}.get(name)
    shard = head.shard
    return whole if dim is None else whole.narrow(dim, shard.start, shard.stop - shard.start)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def loss(mesh):
    """Loss and all gradients, every option, both decoders."""
    for decoder in ("shared", "separate"):
        whole = make(decoder)
        head = vocab_parallel(copy.deepcopy(whole), mesh)
        sizes = [V // mesh.size() + (r < V % mesh.size()) for r in range(mesh.size())]
        assert head.weight.shape[-2] == sizes[mesh.get_local_rank()]
        for options in OPTIONS:
            x, target = data()
            again = x.detach().clone().requires_grad_()
            upstream = torch.randn((4, N // 4) if options.get("reduction") == "none" else ())
            whole.zero_grad()
            head.zero_grad()
            ours, theirs = head.loss(x, target, **options), whole.loss(again, target, **options)
            close(ours, theirs)
            ours.backward(upstream.double())
            theirs.backward(upstream.double())
            close(x.grad, again.grad)
            for name, parameter in whole.named_parameters():
                close(head.get_parameter(name).grad, own(head, name, parameter.grad))


def formula(mesh):
    """A formula of the logits that learns, all options, and what is found of each token."""
    soft = {"target_probability": torch.full((4, N // 4, 3), 1 / 3, dtype=torch.float64)}
    outputs = ("token_loss", "logsumexp", "entropy", "prediction")
    for whole in heads():
        head = vocab_parallel(copy.deepcopy(whole), mesh)
        for options in (
            *OPTIONS,
            {"z_loss": 0.01, "token_weight": torch.rand(4, N // 4).double(), "normalizer": 9.0},
            {**soft, "label_smoothing": 0.1, "z_loss": 0.1},
        ):
            x, target = data()
            if "target_probability" in options:
                target = torch.stack([target, target // 2, target.clamp(max=7)], -1)
                target[1, 2] = -100
            again = x.detach().clone().requires_grad_()
            whole.zero_grad()
            head.zero_grad()
            ours, of_ours = head.loss(x, target, **options, outputs=outputs)
            theirs, of_theirs = whole.loss(again, target, **options, outputs=outputs)
            for a, b in zip((ours, *of_ours), (theirs, *of_theirs), strict=True):
                close(a, b)
            ours.sum().backward()
            theirs.sum().backward()
            close(x.grad, again.grad)
            for name, parameter in whole.named_parameters():
                close(head.get_parameter(name).grad, own(head, name, parameter.grad))
        with torch.no_grad():
            close(head.log_prob(x), whole.log_prob(x))
            close(head(x), whole(x))


def heads():
    """One softmax and mixtures, with formulas of the logits whose parameters learn or do not."""
    torch.manual_seed(1)
    learned = activations.softcap.with_defaults(cap=5.0).module(learnable=True)
    options = {"dtype": torch.float64}
    yield SoftmaxHead(D, V, logits=learned.double(), **options)
    yield SoftmaxHead(D, V, logits=activations.stablemax, bias=False, **options)
    yield make("shared", logits=copy.deepcopy(learned))
    yield make("separate", logits=activations.sigsoftmax)


def inference(mesh):
    """Distribution, target values and their gradient, the best classes."""
    x, target = data()
    target = target.clamp(min=0)
    for decoder in ("shared", "separate"):
        whole = make(decoder)
        head = vocab_parallel(copy.deepcopy(whole), mesh)
        close(head.log_prob(x, target), whole.log_prob(x, target))
        (gradient,) = torch.autograd.grad(head.log_prob(x, target).sum(), x)
        close(gradient, torch.autograd.grad(whole.log_prob(x, target).sum(), x)[0])
        with torch.no_grad():
            close(head.log_prob(x), whole.log_prob(x))
            for ours, theirs in zip(head(x, True), whole(x, True), strict=True):
                close(ours, theirs)
            for k in (1, 5, V // 2, V):  # more than a process holds, and all
                for ours, theirs in zip(head.topk(x, k), whole.topk(x, k), strict=True):
                    close(ours, theirs)
        with pytest.raises(RuntimeError, match=r"call it under torch\.no_grad\(\)"):
            head.log_prob(x)


def sample(mesh):
    """χ² at a level of one in a thousand, with like and unlike seeds on the processes."""
    classes, draws = 13, 20_000
    torch.manual_seed(1)
    whole = MixtureOfSoftmaxes(K, D, classes, decoder="shared", dtype=torch.float64)
    head = vocab_parallel(copy.deepcopy(whole), mesh)
    x = 3 * torch.ones(1, D, dtype=torch.float64)
    p = whole(x).detach().squeeze(0)
    for seed in (7, 7 + dist.get_rank()):
        drawn = head.sample(x, draws, generator=torch.Generator().manual_seed(seed))
        everywhere = [torch.empty_like(drawn) for _ in range(dist.get_world_size())]
        dist.all_gather(everywhere, drawn)
        assert all(torch.equal(drawn, other) for other in everywhere)
        counts = torch.bincount(drawn.flatten(), minlength=classes)
        assert scipy.stats.chisquare(counts.numpy(), draws * p.numpy()).pvalue > 1e-3
        pairs = torch.bincount(drawn[0, 0::2] * classes + drawn[0, 1::2], minlength=classes**2)
        expected = draws / 2 * torch.outer(p, p).flatten()
        assert scipy.stats.chisquare(pairs.numpy(), expected.numpy()).pvalue > 1e-3
    for options in ({"temperature": 0.5}, {"temperature": 2.0, "top_k": 9, "top_p": 0.8}):
        drawn = head.sample(x, draws, torch.Generator().manual_seed(dist.get_rank()), **options)
        others = shards.gather(drawn, head.shard.group)
        assert all(torch.equal(drawn, other) for other in others)
        pair = (drawn, whole.sample(x, draws, **options))
        counts = torch.stack([torch.bincount(d.flatten(), minlength=classes) for d in pair])
        counts = counts[:, counts.any(0)].numpy()
        assert 1 < counts.shape[1] <= options.get("top_k", classes)
        assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3


def state(mesh):
    """Saved as the whole, loaded from the whole, from meta, and drawn anew."""
    whole = make("separate")
    model = nn.Sequential(nn.Linear(D, D), copy.deepcopy(whole))
    reference = copy.deepcopy(model)
    model[1] = vocab_parallel(model[1], mesh)
    full = full_state_dict(model)
    for name, value in reference.state_dict().items():
        close(full[name], value)
    with torch.device("meta"):
        empty = MixtureOfSoftmaxes(K, D, V, dtype=torch.float64)
    head = vocab_parallel(empty, mesh).to_empty(device="cpu")
    head.load_state_dict(whole.state_dict())
    for name, value in whole.state_dict().items():
        close(full_state_dict(head)[name], value)
    upstream = {
        "mixture_weights.weight": whole.prior.weight,
        "mixture_weights.bias": whole.prior.bias,
    }
    for k in range(K):
        upstream[f"softmax_layers.{k}.weight"] = whole.weight[k]
        upstream[f"softmax_layers.{k}.bias"] = whole.bias[k]
    head.reset_parameters()
    drawn = full_state_dict(head)["weight"]
    assert len(drawn.unique()) == drawn.numel()  # no two processes drew the same
    head.load_state_dict(upstream)
    close(full_state_dict(head)["weight"], whole.weight.detach())


def training(mesh):
    """Steps with dropout and clipping: the shared layers stay alike, and so does the result."""
    whole = make("shared", dropout=0.0)
    head = vocab_parallel(copy.deepcopy(whole), mesh)
    optimisers = [torch.optim.Adam(m.parameters(), 0.1) for m in (whole, head)]
    x, target = data()
    for _ in range(3):
        for module, optimiser in zip((whole, head), optimisers, strict=True):
            optimiser.zero_grad()
            module.loss(x.detach(), target).backward()
        expected = torch.nn.utils.clip_grad_norm_(whole.parameters(), 0.01)
        close(clip_grad_norm_(head, 0.01), expected)
        for optimiser in optimisers:
            optimiser.step()
    for name, value in full_state_dict(head).items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-6, atol=1e-8)

    torch.manual_seed(dist.get_rank())  # unlike everywhere
    dropping = vocab_parallel(make("shared", dropout=0.5), mesh)
    losses = [dropping.loss(x.detach(), target).detach() for _ in range(2)]
    assert losses[0] != losses[1]
    everywhere = [torch.empty_like(losses[0]) for _ in range(dist.get_world_size())]
    dist.all_gather(everywhere, losses[0])
    assert all(torch.equal(losses[0], other) for other in everywhere)


class Model(nn.Module):
    """Of features, or, with the decoder tied to an embedding, of classes."""

    def __init__(self, head, *, tied, padding_idx=None):
        super().__init__()
        self.embedding = nn.Identity()
        if tied:
            V = head.num_classes
            self.embedding = nn.Embedding(V, D, padding_idx=padding_idx, dtype=torch.float64)
            head.tie_weights(self.embedding)
        self.body, self.head = nn.Linear(D, D, dtype=torch.float64), head

    def forward(self, x, target):
        return self.head.loss(torch.tanh(self.body(self.embedding(x))), target)

    def split(self, mesh):
        if isinstance(self.embedding, nn.Embedding):
            self.head, self.embedding = vocab_parallel(self.head, mesh, self.embedding)
        else:
            self.head = vocab_parallel(self.head, mesh)


def tied(mesh):
    """The embedding is split with its decoder: one part, the whole's values and gradients."""
    for classes, padding_idx in ((V, 0), (7, 6)):
        torch.manual_seed(1)
        head = MixtureOfSoftmaxes(K, D, classes, decoder="shared", dtype=torch.float64)
        whole = Model(head, tied=True, padding_idx=padding_idx)
        whole.again = whole.embedding  # the same module by another name
        model = copy.deepcopy(whole)
        model.split(mesh)
        model.again = model.embedding
        assert model.head.weight is model.embedding.weight
        words, target = torch.arange(2 * classes).view(2, -1) % classes, torch.arange(classes) // 2
        target = target.expand(2, -1)
        with torch.no_grad():
            close(model.embedding(words), whole.embedding(words))
        optimisers = [torch.optim.Adam(m.parameters(), 0.1) for m in (whole, model)]
        for _ in range(3):
            for m, optimiser in zip((whole, model), optimisers, strict=True):
                optimiser.zero_grad()
                m(words, target).backward()
            close(model.head.weight.grad, own(model.head, "weight", whole.head.weight.grad))
            expected = torch.nn.utils.clip_grad_norm_(whole.parameters(), 0.01)
            close(clip_grad_norm_(model, 0.01), expected)
            for optimiser in optimisers:
                optimiser.step()
        full = full_state_dict(model)
        assert full.keys() == whole.state_dict().keys()
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(full[name], value, rtol=1e-6, atol=1e-8)

        model.embedding.reset_parameters()
        drawn = full_state_dict(model)["embedding.weight"]
        assert len(drawn.unique(dim=0)) == classes
        assert not drawn[padding_idx].any()
        model.to_empty(device="meta").to_empty(device="cpu")  # which unties, in any model
        model.head.tie_weights(model.embedding)
        model.load_state_dict(whole.state_dict())
        close(model(words, target), whole(words, target))
        for bad in (-1, classes):
            with pytest.raises(IndexError, match=f"index {bad} is out of range for {classes} cl"):
                model.embedding(torch.tensor([0, bad]))


def tied_otherwise(mesh):
    """What would be untied is refused, however it was tied; and so is a whole decoder later on."""
    untied = "weight is tied to Embedding's.*vocab_parallel\\(head, mesh, embedding\\) splits"
    for tie in ("tie_weights", "setattr"):
        head, embedding = (
            MixtureOfSoftmaxes(K, D, V, decoder="shared", bias=False),
            nn.Embedding(V, D),
        )
        if tie == "tie_weights":
            head.tie_weights(embedding)
        else:
            head.weight = embedding.weight
        with pytest.raises(ValueError, match=untied):
            vocab_parallel(head, mesh)
        with pytest.raises(ValueError, match="not tied to this embedding"):
            vocab_parallel(head, mesh, nn.Embedding(V, D))
    del embedding
    unbiased = nn.Linear(D, D, bias=False)  # that neither has a bias ties nothing
    head = vocab_parallel(head, mesh)
    assert unbiased.bias is head.bias is None
    whole = nn.Embedding(V, D)
    here = f"the {head.weight.shape[0]} classes of this process, got {V}; vocab_parallel"
    with pytest.raises(ValueError, match=here):
        head.tie_weights(whole)
    head.weight = whole.weight
    with pytest.raises(ValueError, match=here):
        head.loss(torch.zeros(2, D), torch.zeros(2, dtype=torch.int64))


def two_dimensions(kind, *, tied):
    """Data-parallel on one dimension of the mesh, vocab-parallel on the other."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "vocab"))
    torch.manual_seed(3)
    whole = Model(make("shared"), tied=tied)
    model = copy.deepcopy(whole)
    model.split(mesh["vocab"])
    x, target = data()
    x, target = x.detach().reshape(N, D), target.reshape(N).clamp(min=0)
    if tied:
        x = torch.arange(N)
    part = slice(*(N // 2 * (mesh["data"].get_local_rank() + i) for i in (0, 1)))
    if kind == "ddp":
        model = DistributedDataParallel(model, process_group=mesh["data"].get_group())
    else:
        fully_shard(model, mesh=mesh["data"])
    optimisers = [torch.optim.SGD(m.parameters(), 0.5) for m in (whole, model)]
    for _ in range(2):
        for optimiser in optimisers:
            optimiser.zero_grad()
        whole(x, target).backward()
        model(x[part], target[part]).backward()
        expected = torch.nn.utils.clip_grad_norm_(whole.parameters(), 0.1)
        close(clip_grad_norm_(model, 0.1), expected)
        for optimiser in optimisers:
            optimiser.step()
    full = full_state_dict(getattr(model, "module", model))
    for name, value in whole.state_dict().items():
        close(full[name], value)


def compiled(mesh):
    """torch.compile takes the collectives with the operators, in one graph."""
    model = Model(make("shared"), tied=True)
    model.split(mesh)
    words, target = torch.arange(N), torch.arange(N) + V // 2
    expected = torch.autograd.grad(model(words, target), model.head.weight)
    found = torch.compile(model, fullgraph=True, backend="aot_eager")(words, target)
    close(torch.autograd.grad(found, model.head.weight), expected)
    whole = make("shared")
    head = vocab_parallel(copy.deepcopy(whole), mesh)
    x, target = data()
    torch.compile(head.loss, fullgraph=True, backend="aot_eager")(x, target).backward()
    whole.loss(x.detach(), target).backward()
    for name, parameter in whole.named_parameters():
        close(head.get_parameter(name).grad, own(head, name, parameter.grad))


def main(rank, world, file, *scenarios):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    for scenario in scenarios:
        if scenario in ("ddp", "fsdp2"):
            for tied_too in (False, True):
                two_dimensions(scenario, tied=tied_too)
        else:
            (globals().get(scenario) or getattr(wrappers, scenario))(mesh)
        print(f"{scenario}: equal", flush=True)
    dist.barrier()
    gc.collect()  # DDP goes before its group: see tests/kernels/ranks.py
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
