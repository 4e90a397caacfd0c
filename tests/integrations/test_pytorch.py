"""Model surgery on PyTorch models: what is replaced, kept, seen, matched and undone."""

import copy
import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import zeta
from zeta.integrations.pytorch import Matched
from zeta.nn import Exo, LaplaceActivation, LearnableSELUVariation


class Net(nn.Module):
    """Activations in every kind of container, one of them in two places, and two function calls."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
        self.act = nn.ReLU()
        self.several = nn.ModuleList([self.act, nn.GELU(), nn.ReLU()])
        self.named = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = self.act(self.first(x))
        for module in (*self.several, *self.named.values()):
            x = module(x + 0.5)
        return torch.sigmoid(F.relu(self.last(x)).relu())


RELUS = ["first.1", "act", "several.0", "several.2", "named.a"]


def names(report):
    return [replaced.name for replaced in report.replaced]


def places(model):
    """Every module of a model by qualified name, a shared one under each of its names."""
    return dict(model.named_modules(remove_duplicate=False))


# ---- What is selected ---------------------------------------------------------------------------


SELECTIONS = {
    "type": (nn.ReLU, RELUS),
    "tuple": ((nn.ReLU, nn.Tanh), [*RELUS, "named.b"]),
    "name": ("relu", RELUS),
    "pattern": ("named.*", ["named.a", "named.b"]),
    "predicate": (lambda name, m: name.startswith("s") and isinstance(m, nn.ReLU), RELUS[2:4]),
}


@pytest.mark.parametrize("kind", SELECTIONS)
def test_selects_by(kind):
    what, expected = SELECTIONS[kind]
    model = Net()
    before = places(model)
    report = zeta.replace_activations(model, what, Exo)
    assert names(report) == expected
    after = places(model)
    assert {n for n, m in after.items() if isinstance(m, Exo)} == set(expected)
    assert all(after[name] is before[name] for name in before if name not in expected)


@pytest.mark.parametrize("replacement", ["exo", zeta.activations.exo, Exo, lambda: Exo(1.0)])
def test_replacements(replacement):
    model = nn.Sequential(nn.ReLU())
    zeta.replace_activations(model, nn.ReLU, replacement)
    assert type(model[0]) is Exo


def test_a_formula_without_a_class_of_its_own():
    model = nn.Sequential(nn.ReLU())
    zeta.replace_activations(model, nn.ReLU, "mish")
    x = torch.randn(5)
    torch.testing.assert_close(model(x), F.mish(x))


def test_a_class_is_recognised_by_what_it_computes():
    model = nn.Sequential(zeta.activations.gelu.module(), nn.GELU("tanh"), nn.SiLU())
    assert names(zeta.replace_activations(model, "gelu", "exo")) == ["0", "1"]


def test_a_shared_module_stays_shared_and_others_get_their_own():
    model = Net()
    zeta.replace_activations(model, nn.ReLU, LearnableSELUVariation)
    assert model.act is model.several[0]
    own = {id(model.first[1]), id(model.act), id(model.several[2]), id(model.named["a"])}
    assert len(own) == 4
    assert sum(p.numel() for p in model.parameters() if p.dim() == 0) == 4 * 5


def test_a_model_that_is_itself_the_activation():
    model = nn.ReLU()
    report = zeta.replace_activations(model, nn.ReLU, "exo")
    assert isinstance(report.model, Exo)
    assert names(report) == [""]
    assert report.undo() is model


# ---- Functions that modules keep as attributes --------------------------------------------------


def unknown(x):
    return x * torch.tanh(x)


class Kept(nn.Module):
    """Functions: PyTorch's of both kinds, a partial, a formula, and such as cannot be replaced."""

    of_class = staticmethod(F.silu)
    of_both = F.silu

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.first, self.second, self.third = F.gelu, torch.relu, zeta.activations.gelu
        self.partial = functools.partial(F.gelu, approximate="tanh")
        self.unknown, self.of_both, self.listed = unknown, F.gelu, [F.gelu]

    def forward(self, x):
        x = self.partial(self.third(self.second(self.first(self.linear(x)))))
        return self.of_class(self.of_both(self.listed[0](self.unknown(x))))


GELUS = ["first", "third", "partial"]
KEPT_SELECTIONS = {
    "name": ("gelu", GELUS),
    "predicate": (lambda _, value: value is F.gelu, ["first"]),
    "pattern": ("*ir*", ["first", "third"]),
}


@pytest.mark.parametrize("kind", KEPT_SELECTIONS)
def test_functions_kept_as_attributes_are_selected_by(kind):
    what, expected = KEPT_SELECTIONS[kind]
    model, x = Kept(), torch.randn(2, 3)
    before, functions = model(x), dict(vars(model))
    report = zeta.replace_activations(model, what, LearnableSELUVariation)
    assert names(report) == expected
    assert len({id(places(model)[name]) for name in expected}) == len(expected)
    assert {f"{name}.alpha" for name in expected} <= model.state_dict().keys()
    assert not torch.equal(model(x), before)
    assert report.undo() is model
    assert all(vars(model)[name] is value for name, value in functions.items())
    assert model.state_dict().keys() == {"linear.weight", "linear.bias"}
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("inputs", [None, torch.ones(1, 3)], ids=["traced", "run"])
def test_functions_that_were_replaced_are_no_calls(inputs):
    report = zeta.replace_activations(Kept(), "gelu", Exo, example_inputs=inputs)
    assert [call.function for call in report.calls] == ["relu", "tanh", "gelu", "gelu", "silu"]
    assert [replaced.old for replaced in report.replaced] == ["gelu"] * 3
    assert not report.not_called


def test_gain_matching_of_a_function():
    """As that of the module, which overwrites nothing either."""
    x = torch.randn(50, 3)
    kept, module = Kept(), nn.Sequential(nn.Linear(3, 3), nn.GELU())
    module[0] = kept.linear
    options = {"match_gain": True, "example_inputs": x}
    gains = [
        zeta.replace_activations(model, what, Exo, **options).replaced[0].gain
        for model, what in ((kept, "first"), (module, nn.GELU))
    ]
    assert gains[0] == gains[1] != 1
    torch.testing.assert_close(kept.first.shift, module[1].shift)
    without = zeta.replace_activations(Kept(), "first", Exo, match_gain=True).replaced[0].gain
    assert without not in (None, gains[0])


def test_a_model_that_fails_on_its_inputs_keeps_its_functions():
    model = Kept()
    functions = dict(vars(model))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        zeta.replace_activations(model, "gelu", Exo, example_inputs=torch.ones(1, 7))
    assert vars(model).items() == functions.items()


def test_a_function_takes_the_mode_and_dtype_of_its_module():
    model = Kept().double().eval()
    zeta.replace_activations(model, "gelu", LearnableSELUVariation)
    assert not model.first.training
    assert model.first.alpha.dtype == torch.float64


@pytest.mark.parametrize("activation", ["relu", "gelu", nn.GELU()], ids=str)
@pytest.mark.parametrize("kind", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_the_layers_of_transformers(kind, activation):
    """Also after they are copied and loaded, which has an opinion on their activation."""
    layer = kind(8, 2, 16, activation=activation, batch_first=True).eval()
    former = layer.activation
    x = torch.randn(2, 5, 8)
    inputs = (x,) if kind is nn.TransformerEncoderLayer else (x, x)
    before = layer(*inputs)
    what = activation if isinstance(activation, str) else "gelu"
    report = zeta.replace_activations(layer, what, LaplaceActivation, example_inputs=inputs)
    assert (names(report), report.not_called) == (["activation"], ())
    with torch.no_grad():
        after = layer(*inputs)
        assert not torch.allclose(after, before, atol=1e-3)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert isinstance(twin.activation, LaplaceActivation)
            assert torch.equal(twin(*inputs), after)
            assert twin.activation is dict(twin.named_modules())["activation"]
    zeta.replace_activations(layer, "laplace", Exo).undo()
    report.undo()
    assert layer.activation is former
    assert torch.equal(layer(*inputs), before)


# ---- What is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_device_and_dtype_of_the_model_around(device, dtype):
    model = Net().to(device=device, dtype=dtype)
    zeta.replace_activations(model, nn.ReLU, LearnableSELUVariation)
    kinds = {(p.device.type, p.dtype) for p in model.parameters()}
    assert kinds == {(device, dtype)}
    assert model(torch.ones(1, 4, device=device, dtype=dtype)).dtype == dtype


def test_the_nearest_module_decides_the_dtype():
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1), nn.ReLU()).double())
    zeta.replace_activations(model, nn.ReLU, LearnableSELUVariation)
    assert model[1][1].alpha.dtype == torch.float64


def test_the_training_flag():
    model = Net()
    model.named.eval()
    zeta.replace_activations(model, nn.ReLU, Exo)
    assert model.act.training
    assert not model.named["a"].training


def test_hooks_move_and_their_handles_still_remove_them():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    seen = []

    def note(kind):
        return lambda module, *_, **__: seen.append((kind, type(module)))

    old = model[1]
    handles = [
        old.register_forward_pre_hook(note("pre")),
        old.register_forward_hook(note("forward"), with_kwargs=True, always_call=True),
        old.register_full_backward_pre_hook(note("backward pre")),
        old.register_full_backward_hook(note("backward")),
        old.register_state_dict_pre_hook(note("state pre")),
        old.register_state_dict_post_hook(note("state")),
        old.register_load_state_dict_pre_hook(note("load pre")),
        old.register_load_state_dict_post_hook(note("load")),
    ]

    def use():
        seen.clear()
        model(torch.randn(1, 2)).sum().backward()
        model.load_state_dict(model.state_dict())
        return list(seen)

    before = use()
    assert len(before) == len(handles)
    report = zeta.replace_activations(model, nn.ReLU, Exo)
    assert use() == [(kind, Exo) for kind, _ in before]
    report.undo()
    assert use() == before
    zeta.replace_activations(model, nn.ReLU, Exo)
    for handle in handles:
        handle.remove()
    assert use() == []


def test_what_cannot_be_kept_is_said():
    model = nn.Sequential(nn.PReLU(), nn.ReLU())
    model[1].forward = lambda x: x
    report = zeta.replace_activations(model, (nn.PReLU, nn.ReLU), Exo)
    assert report.lost == ("0: weight of PReLU", "1: a forward set on the instance")
    assert "weight of PReLU" in str(report)


def test_the_fused_path_of_a_transformer_layer_is_left():
    """In evaluation it computes its own ReLU or GELU, whatever module stands there."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=nn.GELU(), batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        gelu = layer(x)
        report = zeta.replace_activations(layer, nn.GELU, LaplaceActivation)
        fused, training = layer(x), layer(x.clone().requires_grad_())
        torch.testing.assert_close(fused, training)
        assert not torch.allclose(fused, gelu, atol=1e-3)
        report.undo()
        assert torch.equal(layer(x), gelu)
    assert layer.activation_relu_or_gelu == 2


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_an_encoder_hands_its_layers_no_nested_tensors():
    """Which it does for padded sequences in evaluation, and which no other activation takes."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    inputs = {"src": torch.randn(2, 5, 8), "src_key_padding_mask": padding}
    with torch.no_grad():
        before = model(**inputs)
        report = zeta.replace_activations(model, "gelu", Exo, example_inputs=inputs)
        assert (len(report.replaced), report.not_called) == (2, ())
        after = model(**inputs)
        assert not torch.allclose(after[~padding], before[~padding], atol=1e-3)
        report.undo()
        assert torch.equal(model(**inputs), before)
    assert torch.backends.mha.get_fastpath_enabled()


def test_undo_restores_the_very_modules():
    model = Net()
    before = places(model)
    report = zeta.replace_activations(model, nn.ReLU, LearnableSELUVariation, match_gain=True)
    assert isinstance(model.act, Matched)
    assert report.undo() is model
    assert places(model).keys() == before.keys()
    assert all(module is before[name] for name, module in places(model).items())


def test_undo_in_the_wrong_order_is_refused():
    model = Net()
    first = zeta.replace_activations(model, nn.ReLU, Exo)
    second = zeta.replace_activations(model, Exo, "mish")
    with pytest.raises(RuntimeError, match="undo later ones first"):
        first.undo()
    second.undo()
    first.undo()
    assert isinstance(model.act, nn.ReLU)


def test_learns_in_every_place():
    model = Net()
    zeta.replace_activations(model, (nn.ReLU, nn.GELU, nn.Tanh), LearnableSELUVariation)
    model(torch.randn(8, 4)).sum().backward()
    learned = [p for p in model.parameters() if p.dim() == 0]
    assert len(learned) == 6 * 5
    assert all(p.grad is not None and torch.isfinite(p.grad) for p in learned)


# ---- What is seen -------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [None, torch.ones(1, 4)], ids=["traced", "run"])
def test_function_calls_are_found(inputs):
    report = zeta.replace_activations(Net(), nn.ReLU, Exo, example_inputs=inputs)
    assert [(c.function, c.module) for c in report.calls] == [
        ("relu", ""),
        ("relu", ""),
        ("sigmoid", ""),
    ]
    assert all(call.line.startswith("test_pytorch.py:") for call in report.calls)
    assert not report.not_looked
    assert "sigmoid in the model itself (test_pytorch.py:" in str(report)


class Branching(nn.Module):
    """Cannot be traced on symbols."""

    def __init__(self):
        super().__init__()
        self.act, self.unused = nn.ReLU(), nn.ReLU()

    def forward(self, x, scale):
        return F.gelu(self.act(x) * scale) if x.sum() > 0 else x


def test_a_model_that_cannot_be_traced_is_run_on_example_inputs():
    report = zeta.replace_activations(Branching(), "unused", Exo)
    assert report.calls == ()
    assert "torch.fx cannot trace the model" in report.not_looked
    assert "give example_inputs" in str(report)
    for inputs in ((torch.ones(2), 2.0), {"x": torch.ones(2), "scale": 2.0}):
        report = zeta.replace_activations(Branching(), nn.ReLU, Exo, example_inputs=inputs)
        assert [call.function for call in report.calls] == ["gelu"]
        assert report.not_called == ("unused",)


def test_looking_leaves_no_trace():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.ReLU())
    model[1].eval()
    state = copy.deepcopy(model.state_dict())
    zeta.replace_activations(model, nn.ReLU, Exo, example_inputs=torch.randn(5, 2))
    assert [m.training for m in model] == [True, False, True, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_the_report_in_a_notebook():
    report = zeta.replace_activations(Net(), nn.ReLU, Exo)
    page = report._repr_html_()
    assert page.count("<tr>") == len(RELUS)
    assert "ReLU(inplace=True) → Exo(alpha=1)" in page
    assert "sigmoid in the model itself" in page


# ---- Gain matching ------------------------------------------------------------------------------


def fitted(f, g):
    """Least squares by another route: one column for the gain, one per channel for the shifts."""
    f, g = f.double(), g.double()
    channels = torch.eye(f.shape[1], dtype=torch.float64).repeat(len(f), 1)
    matrix = torch.cat([g.reshape(-1, 1), channels], 1)
    solution = torch.linalg.lstsq(matrix, f.reshape(-1, 1)).solution.flatten()
    return solution[0], solution[1:]


@pytest.mark.parametrize("shape", [(50, 3), (10, 5, 3), (10, 3, 4, 4)])
def test_gain_and_shifts_are_those_of_least_squares(shape):
    before = nn.Conv2d(3, 3, 1) if len(shape) == 4 else nn.Linear(3, 3)
    model = nn.Sequential(before, nn.ReLU(inplace=True))
    x = torch.randn(shape)
    with torch.no_grad():
        pre = before(x).movedim(1 if len(shape) == 4 else -1, -1).reshape(-1, 3)
        gain, shift = fitted(pre.relu(), Exo()(pre))
        report = zeta.replace_activations(
            model, nn.ReLU, Exo, match_gain=True, example_inputs=x.clone()
        )
        assert report.replaced[0].gain == pytest.approx(gain.item(), rel=1e-6)
        torch.testing.assert_close(model[1].shift, shift.float())
        y = model(x).movedim(1 if len(shape) == 4 else -1, -1).reshape(-1, 3)
        torch.testing.assert_close(y, (gain * Exo()(pre) + shift).float())


def test_without_inputs_matching_is_for_the_normal_distribution():
    model = nn.Sequential(nn.ReLU())
    zeta.replace_activations(model, nn.ReLU, lambda: nn.LeakyReLU(0.5), match_gain=True)
    # With m = 1/√(2π): E[f] = m, E[g] = m/2, E[fg] = 1/2, E[g²] = 1/2 + 1/8.
    m = (2 * torch.pi) ** -0.5
    gain = (1 / 2 - m * m / 2) / (5 / 8 - m * m / 4)
    # The quantiles leave out 0.1% of the second moments.
    assert model[0].gain.item() == pytest.approx(gain, rel=1e-3)
    assert model[0].shift.item() == pytest.approx(m - gain * m / 2, rel=1e-3)


def test_matching_with_a_replacement_that_overwrites_its_input():
    x = torch.randn(50, 3)
    gains = []
    for inplace in (False, True):
        report = zeta.replace_activations(
            nn.Sequential(nn.GELU()),
            nn.GELU,
            functools.partial(nn.ReLU, inplace=inplace),
            match_gain=True,
            example_inputs=x.clone(),
        )
        gains.append(report.replaced[0].gain)
    assert gains[0] == gains[1] != 1


def test_what_was_matched_is_saved():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    zeta.replace_activations(model, nn.ReLU, Exo, match_gain=True, example_inputs=torch.randn(9, 2))
    assert {"1.gain", "1.shift"} <= model.state_dict().keys()


def test_a_place_without_observations_is_not_matched():
    inputs = (torch.tensor([1.0, 2.0]), 2.0)
    model = Branching()
    report = zeta.replace_activations(model, nn.ReLU, Exo, match_gain=True, example_inputs=inputs)
    assert [r.gain is None for r in report.replaced] == [False, True]
    assert isinstance(model.act, Matched)
    assert isinstance(model.unused, Exo)


@pytest.fixture(scope="module")
def pretrained():
    """A network that tells digits apart, and images."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy((images / 16).astype("float32")), torch.from_numpy(labels)
    layers = [layer for _ in range(3) for layer in (nn.LazyLinear(64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.LazyLinear(10))
    model(x[:1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        assert (model(x).argmax(-1) == y).float().mean() > 0.95
    return model, x


@pytest.mark.parametrize("name", ["exo", "learnable_selu_variation", "laplace", "silu", "tanh"])
def test_a_pretrained_network_starts_closer_with_matching(name, pretrained):
    model, x = pretrained
    seen, unseen = x[:900], x[900:]
    expected = model(unseen)

    def distance(match_gain):
        report = zeta.replace_activations(
            model, nn.ReLU, name, match_gain=match_gain, example_inputs=seen
        )
        outputs = model(unseen)
        report.undo()
        return (outputs - expected).norm().item()

    assert distance(match_gain=True) < distance(match_gain=False)
    assert torch.equal(model(unseen), expected)


@pytest.mark.parametrize("widths", [(8, 1), (4, 16)])
def test_one_activation_at_two_widths_has_one_shift(widths):
    act, (a, b) = nn.ReLU(), widths
    model = nn.Sequential(nn.Linear(3, a), act, nn.Linear(a, b), act)
    x = torch.randn(5, 3)
    zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=x)
    assert model[1].shift.shape == ()
    assert model(x).shape == (5, b)


class Attention(nn.Module):
    """Laplace attention: the activation is on scores, whose last dimension is the sequence."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return self.act(self.q(x) @ self.k(x).mT) @ x


class ChannelsLast(nn.Module):
    """As in ConvNeXt, a normalisation of the last dimension follows the convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 1), nn.LayerNorm(4), nn.ReLU()

    def forward(self, x):
        return self.act(self.norm(self.conv(x).permute(0, 2, 3, 1)))


@pytest.mark.parametrize(
    ("model", "seen", "other", "shifts"),
    [(Attention(), (2, 5, 4), (2, 7, 4), ()), (ChannelsLast(), (2, 3, 6, 6), (2, 3, 1, 1), (4,))],
)
def test_shifts_are_along_channels_alone(model, seen, other, shifts):
    inputs = torch.randn(seen)
    zeta.replace_activations(model, "relu", Exo, match_gain=True, example_inputs=inputs)
    assert model.act.shift.shape == shifts
    model(torch.randn(other))


def test_a_matched_activation_is_replaced_as_a_whole():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    x = torch.randn(9, 3)
    before = model(x)
    zeta.replace_activations(model, "relu", "tanh", match_gain=True, example_inputs=x)
    report = zeta.replace_activations(model, "tanh", nn.ReLU)
    assert report.replaced[0].old == "FormulaModule(tanh)"
    assert report.lost == ("1: gain, shift of Matched",)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("x", [torch.full((5, 3), torch.inf), torch.randn(1, 3)])
def test_what_cannot_be_matched_is_said(x):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    report = zeta.replace_activations(model, "relu", "tanh", match_gain=True, example_inputs=x)
    assert report.not_matched == ("1",)
    assert "not matched, for an output is constant or not finite:" in str(report)


def test_parameters_per_channel_need_inputs_to_be_matched():
    model = nn.Sequential(nn.Linear(3, 4), nn.PReLU(4))
    with pytest.raises(
        ValueError, match=r"1 cannot be matched without inputs: .*give example_inputs"
    ):
        zeta.replace_activations(model, nn.PReLU, Exo, match_gain=True)


# ---- Errors -------------------------------------------------------------------------------------


def test_nothing_matched_lists_what_there_is():
    with pytest.raises(ValueError, match=r"ReLU ×4, Sequential, Tanh\. Called as .*: relu in") as e:
        zeta.replace_activations(Net(), nn.SiLU, Exo)
    assert "Linear ×2" in str(e.value)


class SiLUActivation(nn.Module):
    """As transformers has it: a class of its own."""


SUGGESTIONS = [
    ("gelo", r"matches 'gelo', as a pattern of .* Did you mean 'gelu' \(1 of these\)\?$"),
    ("GELU", r"Did you mean 'gelu' \(1 of these\)\?$"),
    ("hard_swisch", r"Did you mean 'hardswish'\?$"),
    ("Encoder.*", r"matches 'Encoder\.\*', as a pattern .* Sequential, SiLUActivation ×2$"),
    ("", r"matches '', as a pattern of qualified names"),
    ("mish", r"Sequential matches the name 'mish'; it has: GELU, Linear, Sequential, SiLUAct"),
    (nn.SiLU, r"matches the type SiLU; .* Did you mean 'silu' \(2 of these\)\?$"),
    ((nn.SiLU, nn.Tanh), r"the type SiLU or Tanh; .*\. Did you mean 'silu' \(2 of these\)\?$"),
    (lambda *_: False, r"nothing in Sequential matches the predicate; it has: [\w ,×]+$"),
]


@pytest.mark.parametrize(("what", "message"), SUGGESTIONS)
def test_nothing_matched_suggests_what_would(what, message):
    model = nn.Sequential(nn.Linear(1, 1), nn.GELU(), SiLUActivation(), SiLUActivation())
    with pytest.raises(ValueError, match=message):
        zeta.replace_activations(model, what, Exo)


def quantised():
    return nn.Sequential(torch.ao.nn.quantized.Quantize(1.0, 0, torch.quint8), nn.ReLU())


def scripted():
    return torch.jit.script(nn.Sequential(nn.ReLU()))


def traced_and_frozen():
    return torch.jit.freeze(torch.jit.trace(nn.Sequential(nn.ReLU()).eval(), torch.ones(1)))


REFUSED = [
    (lambda: nn.Sequential(nn.ReLU()), nn.ReLU, Exo(), TypeError, "a class or function"),
    (lambda: nn.Sequential(nn.ReLU()), nn.ReLU, F.relu, TypeError, "without arguments"),
    (lambda: nn.Sequential(nn.ReLU()), nn.ReLU, dict, TypeError, "not dict"),
    (lambda: nn.Sequential(nn.ReLU()), nn.ReLU, "exoo", ValueError, "did you mean 'exo'"),
    (lambda: nn.Sequential(nn.ReLU()), F.relu, Exo, TypeError, "give its name, 'relu'"),
    (lambda: nn.Sequential(nn.ReLU()), 3, Exo, TypeError, "must be a type, a tuple"),
    (lambda: nn.Sequential(nn.SiLU()), "silu", "swiglu", TypeError, "2 .*: .*zeta.replace_gates"),
    (scripted, nn.ReLU, Exo, TypeError, "scripted or frozen"),
    (traced_and_frozen, nn.ReLU, Exo, TypeError, "scripted or frozen"),
    (quantised, nn.ReLU, Exo, TypeError, "quantised"),
    (lambda: nn.Sequential(nn.GLU()), "glu", "exo", ValueError, "glu halves the width .*: exo"),
    (lambda: nn.Sequential(nn.GLU()), nn.GLU, Exo, ValueError, "glu halves the width"),
    (dict, nn.ReLU, Exo, TypeError, "must be a torch.nn.Module, an nnx.Module"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit and torch.ao
@pytest.mark.parametrize(("model", "what", "replacement", "error", "message"), REFUSED)
def test_errors(model, what, replacement, error, message):
    with pytest.raises(error, match=message):
        zeta.replace_activations(model(), what, replacement)


def test_one_module_made_for_all_places_is_refused():
    one = Exo()
    with pytest.raises(TypeError, match="the same module again"):
        zeta.replace_activations(Net(), nn.ReLU, lambda: one)
