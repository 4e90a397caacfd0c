"""Gates in PyTorch models: what is replaced, what it computes, saves and meets in other code."""

import copy
import functools
import operator
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import activations as theirs

import zeta
from zeta import activations, formula
from zeta.integrations.pytorch_gates import FusedGate, is_product
from zeta.nn import GatedUnit


class Block(nn.Module):
    """A feed-forward layer of today's language models."""

    def __init__(self, act=None):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(10, 6)
        self.act = act or nn.SiLU()

    def forward(self, x):
        return self.down(self.act(self.gate(x)) * self.up(x))


class ValueFirst(Block):
    def forward(self, x):
        return self.down(self.up(x) * self.act(self.gate(x)))


class Packed(Block):
    def forward(self, x):
        gate, up = torch.cat((self.gate(x), self.up(x)), -1).chunk(2, -1)
        return self.down(self.act(gate) * up)


BLOCKS = [Block, ValueFirst, Packed]


def run(model, x):
    """The output, and the gradients by the input and every parameter."""
    x = x.detach().requires_grad_()
    y = model(x)
    upstream = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y)
    return [y, *torch.autograd.grad(y, [x, *model.parameters()], upstream)]


def assert_as_exact(now, before, true):
    """To twice the error of the former model, or two units."""
    error, former = ((t - true).abs().max() for t in (now, before))
    assert error <= 2 * former + 2 * torch.finfo(now.dtype).eps * true.abs().max()


def assert_same(model, former, x):
    exact = run(copy.deepcopy(former).double(), x.double())
    for now, before, true in zip(run(model, x), run(former, x), exact, strict=True):
        assert_as_exact(now, before, true)


def replaced(report):
    return {r.name: (r.old, r.new) for r in report.replaced}


# ---- What it computes ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cls", BLOCKS)
def test_the_same_by_one_gate(cls, dtype):
    model, x = cls().to(dtype), torch.randn(3, 5, 6, dtype=dtype)
    former = copy.deepcopy(model)
    report = zeta.replace_gates(model)
    assert replaced(report) == {"act": ("SiLU()", "GatedUnit(swiglu)")}
    assert report.left == ()
    assert report.model is model
    assert_same(model, former, x)
    assert report.undo() is model
    assert torch.equal(model(x), former(x))


@pytest.mark.parametrize("cls", BLOCKS)
def test_saves_gate_and_value_alone(cls):
    def saved(model):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            model(torch.randn(4, 6))
        return len([t for t in kept if t.shape == (4, 10)])

    model = cls()
    before = saved(model)
    zeta.replace_gates(model)
    # SiLU's input, both factors, and the product for the linear map below.
    assert (before, saved(model)) == (4, 3)


@pytest.mark.usefixtures("launched_by_python")
def test_one_kernel_each_way(monkeypatch):
    launched = []
    launch = zeta.kernels.cpu.launch
    monkeypatch.setattr(zeta.kernels.cpu, "launch", lambda *a: (launched.append(a), launch(*a))[1])
    for cls in BLOCKS:
        model = cls()
        zeta.replace_gates(model)
        launched.clear()
        run(model, torch.randn(4, 6))
        assert len(launched) == 2


GATE_OF = {
    "silu": (nn.SiLU(), "swiglu"),
    "silu of theirs": (theirs.ACT2FN["silu"], "swiglu"),
    "silu of zeta": (activations.silu.module(), "swiglu"),
    "gelu": (nn.GELU(), "geglu"),
    "gelu by tanh": (nn.GELU("tanh"), "geglu_tanh"),
    "gelu_new": (theirs.ACT2FN["gelu_new"], "geglu_tanh"),
    "gelu_fast": (theirs.ACT2FN["gelu_fast"], "geglu_tanh"),
    "relu": (nn.ReLU(inplace=True), "reglu"),
    "sigmoid": (nn.Sigmoid(), "glu"),
    "relu2": (theirs.ACT2FN["relu2"], "sreglu"),
    "quick_gelu": (theirs.ACT2FN["quick_gelu"], "qgeglu"),
    "selu": (nn.SELU(), "seglu"),
    "linear": (theirs.ACT2FN["linear"], "bilinear"),
    "identity": (nn.Identity(), "bilinear"),
}


@pytest.mark.parametrize("kind", GATE_OF)
def test_the_gate_of_the_activation(kind):
    act, name = GATE_OF[kind]
    model, x = Block(act), torch.randn(3, 6)
    former = copy.deepcopy(model)
    report = zeta.replace_gates(model)
    assert replaced(report)["act"] == (repr(act), f"GatedUnit({name})")
    assert_same(model, former, x)


def test_the_gates_that_are_an_activation_times_the_value():
    products = {name for name, f in activations.GATES.items() if is_product(f)}
    of_gate = {"bilinear", "glu", "reglu", "geglu", "geglu_tanh", "swiglu"}
    of_another = {"seglu", "sreglu", "qgeglu", "xatglu", "xgeglu", "xswiglu"}
    of_parameters = {"swish_glu", "powlu_glu"}
    assert products == of_gate | of_another | of_parameters


WITHOUT_A_GATE = {
    "gelu_10": "the catalogue has no gate of it; name a formula",
    "relu6": "the catalogue has no gate of it; name a formula",
    "tanh": "the catalogue has no gate of it; name a formula",
    "prelu": "it has values of its own, which no gate of the catalogue has; name a formula",
}


@pytest.mark.parametrize("name", WITHOUT_A_GATE)
def test_an_activation_without_a_gate_is_left(name):
    act = theirs.ACT2FN[name]
    model = nn.Sequential(Block(), Block(act))
    report = zeta.replace_gates(model)
    assert [*replaced(report)] == ["0.act"]
    assert report.left == (f"1.act, {act!r}: {WITHOUT_A_GATE[name]}",)
    assert model[1].act is act
    assert f"left as they are:\n  1.act, {act!r}: " in str(report)


class Bounded(nn.Module):
    """What swiglu_step has of its gate; it bounds its value too."""

    def forward(self, x):
        return F.silu(x).clamp(max=7)


def test_a_gate_that_does_more_to_its_value_is_no_gate_of_the_activation():
    with pytest.raises(ValueError, match="the catalogue has no gate of it; name a formula"):
        zeta.replace_gates(Block(Bounded()))


def test_a_matched_or_learned_activation_is_left():
    model = nn.Sequential(Block(), Block(), Block(activations.silu.module()))
    zeta.replace_activations(model, "0.act", "silu", match_gain=True)
    model[1].act = zeta.nn.Exo(learnable=True)
    report = zeta.replace_gates(model)
    assert [*replaced(report)] == ["2.act"]
    assert [line.partition(", ")[0] for line in report.left] == ["0.act", "1.act"]


# ---- A formula of one's own choice --------------------------------------------------------------


@formula
def lisglu(gate, value):
    return gate * zeta.math.tanh(gate) * value


FORMULAS = {
    "name": ("swiglu_oai", activations.swiglu_oai),
    "formula": (activations.situ_glu, activations.situ_glu),
    "own": (lisglu, lisglu),
    "maker": (lambda: GatedUnit(lisglu), lisglu),
}


@pytest.mark.parametrize("cls", BLOCKS)
@pytest.mark.parametrize("kind", FORMULAS)
def test_a_formula(kind, cls):
    given, f = FORMULAS[kind]
    model, x = cls(nn.PReLU()), torch.randn(3, 6)
    report = zeta.replace_gates(model, given)
    expected = model.down(f(model.gate(x), model.up(x)))
    torch.testing.assert_close(model(x), expected)
    assert report.lost == ("act: weight of PReLU",)
    assert isinstance(report.undo().act, nn.PReLU)


def test_a_learnable_gate_is_of_the_model():
    model = nn.Sequential(Block(), Block()).double().eval()
    zeta.replace_gates(model, lambda: GatedUnit(activations.swiglu_oai, learnable=True))
    learned = {k: v for k, v in model.named_parameters() if ".act." in k}
    assert {*learned} == {
        f"{i}.act.activation.{name}" for i in (0, 1) for name in ("limit", "alpha")
    }
    assert all(p.dtype == torch.float64 for p in learned.values())
    assert not model[0].act.activation.training
    model(torch.randn(3, 6).double()).sum().backward()
    assert all(p.grad is not None for p in learned.values())
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    assert len({id(m.act.activation.limit) for m in (*model, *other)}) == 4


REFUSED = {
    "one input": ("silu", TypeError, r"a gate has two inputs, and silu\(x\) has 1: give one of "),
    "formula": (activations.exo, TypeError, "a gate has two inputs, and exo"),
    "unknown": ("swigul", zeta.UnknownNameError, "did you mean 'swiglu'"),
    "module": (GatedUnit(activations.swiglu), TypeError, "must be a name of the catalogue, a form"),
    "number": (3, TypeError, "must be a name of the catalogue, .*; got 3"),
    "class": (nn.SiLU, TypeError, "must make a zeta.nn.GatedUnit, not SiLU"),
    "shared": (functools.cache(lambda: GatedUnit(lisglu)), TypeError, "makes the same module"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_gate_is_refused(kind):
    given, error, message = REFUSED[kind]
    model = nn.Sequential(Block(), Block())
    with pytest.raises(error, match=message) as caught:
        zeta.replace_gates(model, given)
    assert "\n" not in str(caught.value)
    assert isinstance(model[0].act, nn.SiLU)


# ---- Which places -------------------------------------------------------------------------------


class Function(Block):
    def __init__(self):
        super().__init__()
        del self.act
        self.act = functools.partial(F.gelu, approximate="tanh")


def test_a_function_kept_as_an_attribute():
    model, x = Function(), torch.randn(3, 6)
    former, function = copy.deepcopy(model), model.act
    report = zeta.replace_gates(model)
    assert replaced(report) == {"act": ("gelu", "GatedUnit(geglu_tanh)")}
    assert_same(model, former, x)
    assert report.undo().act is function


class Plain(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        return self.act(x)


def test_a_shared_activation_is_replaced_where_it_is_a_factor():
    shared = nn.SiLU()
    model = nn.Sequential(Block(shared), Plain(shared), Block(shared))
    report = zeta.replace_gates(model)
    assert [*replaced(report)] == ["0.act", "2.act"]
    assert report.left == ("1.act, SiLU(): the code of Plain multiplies nothing by it",)
    assert model[0].act is model[2].act
    assert model[1].act is shared
    report.undo()
    assert all(m.act is shared for m in model)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Plain(nn.SiLU()), ": SiLU(): the code of Plain multiplies nothing by it"),
        (Block(nn.Tanh()), ": Tanh(): the catalogue has no gate of it; name a formula"),
        (nn.Sequential(nn.ReLU(), nn.ReLU()), "code of Sequential multiplies nothing by it ×2"),
        (nn.Linear(2, 2), "it has no activation that is a module"),
        (nn.SiLU(), "it has no activation that is a module"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_nothing_to_replace_says_why(model, why):
    with pytest.raises(ValueError, match=r"nothing in \w+ is act\(gate\) \* value ") as caught:
        zeta.replace_gates(model)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gate_of_a_packed_tensor_is_no_activation():
    model = nn.Sequential(Block(), nn.GLU(), GatedUnit(activations.swiglu))
    assert [*replaced(zeta.replace_gates(model))] == ["0.act"]


def test_a_second_surgery():
    model, x = Block(), torch.randn(3, 6)
    first = zeta.replace_gates(model)
    with pytest.raises(ValueError, match="it is a gate already; name a formula for another one"):
        zeta.replace_gates(model)
    second = zeta.replace_gates(model, "geglu")
    assert replaced(second) == {"act": ("GatedUnit(swiglu)", "GatedUnit(geglu)")}
    torch.testing.assert_close(model(x), model.down(F.gelu(model.gate(x)) * model.up(x)))
    with pytest.raises(RuntimeError, match="undo later ones first"):
        first.undo()
    second.undo()
    assert isinstance(first.undo().act, nn.SiLU)


@pytest.mark.parametrize("what", ["act", GatedUnit])
@pytest.mark.parametrize("gate", ["swiglu", "glu", "swiglu_oai"])
def test_an_activation_in_the_place_of_a_gate(gate, what):
    """The gate is one place, and what comes there is multiplied as the first activation was."""
    model, x = Block(), torch.randn(3, 6)
    zeta.replace_gates(model, gate)
    report = zeta.replace_activations(model, what, "exo", example_inputs=x)
    assert replaced(report)["act"][1] == "Exo(alpha=1)"
    expected = model.down(activations.exo(model.gate(x)) * model.up(x))
    torch.testing.assert_close(model(x), expected)
    assert isinstance(report.undo().act, FusedGate)


# ---- Other uses of what is pending --------------------------------------------------------------

X, VALUE = torch.randn(4, 10), torch.randn(4, 10)
OTHER_USES = {
    "number": lambda act, x: act(x) * 2.0,
    "per token": lambda act, x: act(x) * VALUE[:, :1],
    "per token first": lambda act, x: VALUE[:, :1] * act(x),
    "per channel": lambda act, x: VALUE[0] * act(x),
    "broadcasts the gate": lambda act, x: act(x[:1]) * VALUE,
    "other dtype": lambda act, x: act(x) * VALUE.double(),
    "twice": lambda act, x: act(x) * act(VALUE),
    "mul": lambda act, x: act(x).mul(VALUE),
    "mul_": lambda act, x: (x * 1).mul_(act(x)),
    "in place": lambda act, x: operator.imul(x.clone(), act(x)),
    "alpha": lambda act, x: torch.add(x, act(x), alpha=2),
    "plus": lambda act, x: act(x) + 1,
    "plus tensor": lambda act, x: VALUE + act(x),
    "minus": lambda act, x: 1 - act(x),
    "negative": lambda act, x: -act(x),
    "power": lambda act, x: act(x) ** 2,
    "matrix": lambda act, x: act(x) @ VALUE.T,
    "matrix second": lambda act, x: VALUE @ act(x).T,
    "linear": lambda act, x: F.linear(act(x), VALUE),
    "dropout": lambda act, x: F.dropout(act(x), 0.5, training=False),
    "list": lambda act, x: torch.cat([x, act(x)], 1),
    "index": lambda act, x: act(x)[1:3],
    "iterate": lambda act, x: [*act(x)][1],
    "method": lambda act, x: act(x).sum(0),
    "compare": lambda act, x: (act(x) > 0) * x,
}


@pytest.mark.parametrize("use", OTHER_USES)
@pytest.mark.parametrize("kind", ["silu", "gelu", "sigmoid"])
def test_other_uses_compute_the_activation(kind, use):
    plain, name = GATE_OF[kind]
    act = FusedGate(GatedUnit(activations.get(name)), "act")
    x = X.clone().requires_grad_()
    y, expected = (OTHER_USES[use](f, x) for f in (act, plain))
    assert y.dtype == expected.dtype
    got, true = (torch.autograd.grad(t.sum(), x)[0] for t in (y, expected))
    for ours, others in ((y, expected), (got, true)):  # which are computed in float32
        torch.testing.assert_close(ours, others, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use", OTHER_USES)
def test_other_uses_of_a_bounded_gate_are_refused(use):
    act = FusedGate(GatedUnit(activations.swiglu_oai), "layers.0.act")
    message = r"layers.0.act: swiglu_oai\(.*\) is no activation times a value, .* float32 of shape "
    with pytest.raises(RuntimeError, match=message) as caught:
        OTHER_USES[use](act, X.clone().requires_grad_())
    assert "\n" not in str(caught.value)


def test_the_refusal_names_what_came():
    act = FusedGate(GatedUnit(activations.swiglu_oai), "act")
    with pytest.raises(RuntimeError, match=r"it came to float64 of shape \(4, 10\) on cpu"):
        act(X) * VALUE.double()


def test_the_forms_of_a_product():
    act = FusedGate(GatedUnit(activations.drelu), "act")
    expected = X.relu() * VALUE.relu()
    for product in (
        act(X) * VALUE,
        VALUE * act(X),
        torch.mul(act(X), VALUE),
        torch.mul(VALUE, act(X)),
        VALUE.mul(act(X)),
    ):
        assert torch.equal(product, expected)


# ---- What is kept -------------------------------------------------------------------------------


def test_hooks_see_the_activation_itself():
    """A product of an activation is computed in two steps while they are there."""
    model, x = Block(), torch.randn(3, 6)
    former, seen = copy.deepcopy(model), []
    handle = model.act.register_forward_hook(lambda module, args, output: seen.append(output))
    zeta.replace_gates(model)
    assert_same(model, former, x)
    assert torch.equal(seen[-1].float(), activations.silu(model.gate(x)))
    handle.remove()
    seen.clear()
    model(x)
    assert seen == []
    model.act.register_full_backward_hook(lambda module, grad, upstream: seen.extend(grad))
    x.requires_grad_()
    model(x).sum().backward()
    assert seen[0].shape == (3, 10)
    before = []
    model.act.register_forward_pre_hook(lambda module, args: before.append(args[0]))
    model(x)
    assert torch.equal(before[0], model.gate(x))


def test_hooks_on_a_bounded_gate():
    model, x = Block(), torch.randn(3, 6)
    zeta.replace_gates(model, "swiglu_oai")
    expected, seen = model(x), []
    model.act.register_forward_hook(lambda module, args, output: seen.append(output))
    assert torch.equal(model(x), expected)
    with pytest.raises(RuntimeError, match="no activation times a value"):
        seen[0].mean()
    model.act.register_full_backward_hook(lambda module, grad, upstream: None)
    with pytest.raises(RuntimeError, match="no activation times a value"):
        model(x)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "double": lambda model: model.double().float(),
    "empty": lambda model: model,
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_compute_the_same(kind):
    model, x = Block(), torch.randn(3, 6)
    zeta.replace_gates(model, lambda: GatedUnit(activations.swiglu_oai, learnable=True))
    other = COPIES[kind](model)
    assert torch.equal(other(x), model(x))
    with torch.no_grad():
        other.act.activation.limit.fill_(0.1)
    assert torch.equal(other(x), model(x)) is (other is model)


def test_on_the_meta_device():
    with torch.device("meta"):
        model = Block()
        report = zeta.replace_gates(model)
        zeta.replace_gates(
            other := Block(), lambda: GatedUnit(activations.swiglu_oai, learnable=True)
        )
    assert replaced(report)["act"][1] == "GatedUnit(swiglu)"
    assert model(torch.randn(3, 6, device="meta")).shape == (3, 6)
    assert other.act.activation.limit.is_meta
    other.to_empty(device="cpu")
    other.act.activation.reset_parameters()
    assert other.act.activation.limit == 7


# ---- Compilers, exporters, transforms -----------------------------------------------------------


def gated(cls, name=None):
    model = cls().eval()
    zeta.replace_gates(model, name)
    return model


@pytest.mark.parametrize("name", [None, "swiglu_oai"])
@pytest.mark.parametrize("cls", BLOCKS)
def test_compiles_as_one_graph(cls, name):
    model, x = gated(cls, name), torch.randn(3, 6)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for got, expected in zip(run(compiled, x), run(model, x), strict=True):
        torch.testing.assert_close(got, expected)


# PyTorch hides it, by a filter that comes after those of a test.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiles_where_the_graph_breaks_before_the_product():
    class Breaks(Block):
        def forward(self, x):
            hidden = self.act(self.gate(x))
            torch._dynamo.graph_break()
            return self.down(hidden * self.up(x))

    model, x = gated(Breaks, "swiglu_oai"), torch.randn(3, 6)
    compiled = torch.compile(model, backend="aot_eager")
    for got, expected in zip(run(compiled, x), run(model, x), strict=True):
        torch.testing.assert_close(got, expected)


def test_compiles_with_other_uses_as_one_graph():
    act = FusedGate(GatedUnit(activations.swiglu), "act")
    for use in ("number", "per token first", "linear", "plus", "method"):
        f = functools.partial(OTHER_USES[use], act)
        compiled = torch.compile(f, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(X), f(X))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cls", BLOCKS)
def test_exports(cls, strict):
    model, x = gated(cls), torch.randn(3, 6)
    exported = torch.export.export(model, (x,), strict=strict).module()
    torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("cls", BLOCKS)
def test_traces(cls):
    model, x = gated(cls), torch.randn(3, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (x,))
    torch.testing.assert_close(traced(x), model(x))
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))


@pytest.mark.parametrize("cls", BLOCKS)
def test_transforms(cls):
    model, x = gated(cls), torch.randn(3, 6)
    parameters = dict(model.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x,)).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    model(x).sum().backward()
    for name, gradient in each.items():
        torch.testing.assert_close(gradient.sum(0), parameters[name].grad)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("cls", BLOCKS)
def test_checkpointing(cls, reentrant):
    model, x = gated(cls), torch.randn(3, 6, requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
    (got,) = torch.autograd.grad(y.sum(), x) if not reentrant else (None,)
    if reentrant:
        y.sum().backward()
        got = x.grad
    (expected,) = torch.autograd.grad(model(x).sum(), x)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("cls", BLOCKS)
def test_autocast(cls):
    model, x = gated(cls), torch.randn(3, 6)
    former = cls()
    former.load_state_dict(model.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = model(x), former(x)
    assert got.dtype == expected.dtype == torch.bfloat16
    assert_as_exact(got, expected, former.double()(x.double()))


class Adapted(nn.Module):
    """A linear map with a low-rank addition, as of LoRA."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2), nn.Linear(2, base.out_features)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_adapted_linear_maps():
    model, x = Block(), torch.randn(3, 6)
    for name in ("gate", "up", "down"):
        setattr(model, name, Adapted(getattr(model, name)))
    former = copy.deepcopy(model)
    zeta.replace_gates(model)
    for ours, theirs_ in zip(*(step(m, x) for m in (model, former)), strict=True):
        torch.testing.assert_close(ours, theirs_)


def step(model, x):
    """The gradients of what learns."""
    model(x).square().sum().backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"the model must be a torch.nn.Module, .*; got int"):
        zeta.replace_gates(3)
