"""transformers: surgery on its models, and Zeta's activations by name in its configurations."""

import math
import re
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    activations as theirs,
)
from transformers.generation import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.initialization import no_init_weights

import zeta
from zeta import activations
from zeta._mixture import warped_logits
from zeta.integrations.pytorch import Matched
from zeta.nn import Exo, LearnableSELUVariation, MixtureOfSoftmaxes

SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
GPT_OSS = {
    **SIZE,
    "vocab_size": 24,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 4,
}
TOKENS = torch.arange(24).reshape(2, 12)
NAMES = ["exo", "learnable_selu_variation", "laplace"]


def bert(**config):
    inputs = {"input_ids": TOKENS, "labels": torch.tensor([0, 1])}
    return BertForSequenceClassification(BertConfig(vocab_size=24, **SIZE, **config)), inputs


def vit(**config):
    inputs = {"pixel_values": torch.randn(2, 3, 16, 16), "labels": torch.tensor([0, 1])}
    settings = ViTConfig(image_size=16, patch_size=8, **SIZE, **config)
    return ViTForImageClassification(settings), inputs


def llama(**config):
    inputs = {"input_ids": TOKENS, "labels": TOKENS}
    settings = LlamaConfig(vocab_size=24, num_key_value_heads=2, **SIZE, **config)
    return LlamaForCausalLM(settings), inputs


MODELS = {  # what builds a model, the activation it has, and the places of those
    "bert": (bert, "gelu", "bert.encoder.layer.{}.intermediate.intermediate_act_fn"),
    "vit": (vit, "gelu", "vit.layers.{}.mlp.activation_fn"),
    "llama": (llama, "silu", "model.layers.{}.mlp.act_fn"),
}


@pytest.fixture(autouse=True)
def _their_names():
    """Registration is global: every test starts with their names and leaves them."""

    def restore():
        theirs.ACT2FN.clear()
        theirs.ACT2FN.update(theirs.ACT2CLS)

    restore()
    yield
    restore()


def train(model, inputs, steps=3):
    """The loss at every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def zeta_modules(model, name):
    modules = model.modules()
    return [m for m in modules if isinstance(m, zeta.nn.FormulaModule) and m.formula.name == name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_trains_after_surgery(kind, name):
    build, former, place = MODELS[kind]
    model, inputs = build()
    report = zeta.replace_activations(model, former, name, match_gain=True, example_inputs=inputs)
    assert [r.name for r in report.replaced] == [place.format(i) for i in range(2)]
    assert report.not_called == ()
    assert all(r.gain is not None for r in report.replaced)
    assert len(zeta_modules(model, name)) == 2
    losses = train(model, inputs)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_a_type_that_transformers_has_anew_suggests_its_name():
    model, _ = llama()
    with pytest.raises(ValueError, match=r"type SiLU; .*Did you mean 'silu' \(2 of these\)\?"):
        zeta.replace_activations(model, nn.SiLU, "exo")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_trains_from_a_configuration(kind, name):
    zeta.register_transformers()
    model, inputs = MODELS[kind][0](hidden_act=name)
    modules = zeta_modules(model, name)
    assert len(modules) == 2
    losses = train(model, inputs)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    if name == "learnable_selu_variation":
        first, second = (m.alpha.item() for m in modules)
        assert first != second  # parameters of their own, which learn


def test_a_model_with_such_a_name_is_saved_and_loaded(tmp_path):
    zeta.register_transformers()
    model, inputs = llama(hidden_act="learnable_selu_variation")
    train(model, inputs)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(model.eval()(TOKENS).logits, loaded(TOKENS).logits)


def test_every_name_of_the_catalogue_is_there_and_theirs_stay():
    before = dict(dict.items(theirs.ACT2FN))
    names = zeta.register_transformers()
    assert set(activations.CATALOGUE) <= set(theirs.ACT2FN)
    kept = (set(activations.CATALOGUE) & set(before)) - {"laplace"}
    assert set(names) == set(activations.CATALOGUE) - kept
    for name in set(before) - {"laplace"}:
        assert dict.get(theirs.ACT2FN, name) is before[name]
    x = torch.randn(9)
    for name in names:
        module = theirs.ACT2FN[name]
        assert module is not theirs.ACT2FN[name]
        torch.testing.assert_close(module(x), activations.get(name)(x))


def test_registering_again_changes_nothing():
    first = zeta.register_transformers()
    entries = dict(dict.items(theirs.ACT2FN))
    assert zeta.register_transformers() == first
    assert dict(dict.items(theirs.ACT2FN)) == entries


def test_theirs_are_taken_over_when_asked():
    names = zeta.register_transformers(replace=("gelu", "silu"))
    assert {"gelu", "silu"} <= set(names)
    assert theirs.ACT2FN["gelu"].formula is activations.gelu
    assert type(theirs.ACT2FN["laplace"]) is theirs.LaplaceActivation
    with pytest.raises(ValueError, match="did you mean 'gelu'"):
        zeta.register_transformers(replace=("gelo",))


def test_a_gate_is_no_activation_of_a_configuration():
    message = (
        r"one input, and swiglu\(gate, value\) takes 2 .*zeta.replace_gates on a PyTorch model"
    )
    with pytest.raises(TypeError, match=message):
        zeta.register_transformers(replace=("swiglu",))
    assert "swiglu" not in zeta.register_transformers()
    with pytest.raises(TypeError, match=message):
        llama(hidden_act="swiglu")
    model = GptOssForCausalLM(GptOssConfig(hidden_act="swiglu", **GPT_OSS))  # which ignores it
    for surgery in (
        lambda: zeta.replace_activations(model, "silu", "exo"),
        lambda: zeta.replace_gates(model),
    ):
        with pytest.raises(ValueError, match="hidden_act='swiglu', but no module computes that"):
            surgery()


def test_laplace_is_theirs_with_the_lower_tail_kept():
    x = torch.linspace(-6, 6, 60_001)
    ours, former = zeta.nn.LaplaceActivation()(x), theirs.ACT2FN["laplace"](x)
    # Theirs halves 1 + erf, rounded to a multiple of 2^-24 or 2^-23.
    assert (ours - former).abs().max() <= 2.0**-23
    upper = x >= 0.707107
    ulp = np.spacing(former[upper].numpy())
    assert (np.abs((ours - former)[upper].numpy()) / ulp).max() <= 2
    tail = torch.tensor([-1.0])
    exact = float(mpmath.ncdf((mpmath.mpf(-1) - mpmath.mpf(0.707107)) / mpmath.mpf(0.282095)))
    assert abs(zeta.nn.LaplaceActivation()(tail).item() / exact - 1) < 1e-5
    assert abs(theirs.ACT2FN["laplace"](tail).item() / exact - 1) > 0.5


@contextmanager
def memory_full_of_nan():
    """What nobody has written to is NaN, as it may be."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def save_part(model, path, has):
    """Save the tensors whose name ``has`` accepts."""
    model.save_pretrained(path, state_dict={k: v for k, v in model.state_dict().items() if has(k)})


def load(cls, path, **options):
    with memory_full_of_nan():
        return cls.from_pretrained(path, **options)


@pytest.mark.parametrize("kind", MODELS)
def test_a_checkpoint_without_the_parameters_starts_where_documented(kind, tmp_path):
    build, _, place = MODELS[kind]
    model, inputs = build()
    model.save_pretrained(tmp_path)
    zeta.register_transformers()
    name = "learnable_selu_variation"
    loaded = load(type(model), tmp_path, hidden_act=name)
    for i in range(2):
        assert_starting_values(loaded.get_submodule(place.format(i)))
    kept = loaded.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert np.isfinite(train(loaded, inputs)).all()


def assert_starting_values(module):
    for name, value in module.initial_values.items():
        tensor = getattr(module, name)
        assert torch.equal(tensor, torch.full_like(tensor, value)), name


class TinyConfig(PreTrainedConfig):
    model_type = "zeta_tiny"


class Tiny(PreTrainedModel):
    """One of each of Zeta's modules with parameters or buffers."""

    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(4, 4)
        self.exo = Exo(0.5, learnable=True)
        self.channels = LearnableSELUVariation(num_parameters=4)
        self.fixed = Exo(0.5, num_parameters=4)
        self.shared = activations.laplace.module(learnable=True)
        self.head = MixtureOfSoftmaxes(2, 4, 5)
        self.post_init()

    def forward(self, x, labels):
        for layer in (self.linear, self.exo, self.channels, self.fixed, self.shared):
            x = layer(x)
        return self.head.loss(x, labels)


class TinyThatIgnoresThem(Tiny):
    def _init_weights(self, module):
        pass


class TinyThatKnowsThem(Tiny):
    def _init_weights(self, module):
        if isinstance(module, Exo) and module.learnable:
            nn.init.constant_(module.alpha, 0.3)


class Nested(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.inner = TinyThatIgnoresThem(config)
        self.exo = Exo(learnable=True)
        self.post_init()


def changed(model):
    """With every value off its start."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(2)
    return model


def assert_mixture_is_drawn(tensors):
    for tensor in tensors:
        assert 0 < tensor.abs().max() <= 1 / math.sqrt(4)


WITH_ACCELERATE = pytest.mark.skipif(not find_spec("accelerate"), reason="needs accelerate")
OPTIONS = [
    {},
    {"dtype": torch.bfloat16},
    pytest.param({"device_map": "cpu"}, marks=WITH_ACCELERATE),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cls", [Tiny, TinyThatIgnoresThem])
def test_own_models_start_where_documented(cls, options, tmp_path):
    save_part(cls(TinyConfig()), tmp_path, lambda key: key.startswith("linear"))
    model = load(cls, tmp_path, **options)
    for module in (model.exo, model.channels, model.fixed, model.shared):
        assert_starting_values(module)
    assert_mixture_is_drawn(model.head.parameters())
    x, labels = torch.randn(3, 4, dtype=model.dtype), torch.tensor([0, 1, 4])
    assert model(x, labels).isfinite()


def test_what_the_checkpoint_has_of_a_module_is_kept(tmp_path):
    has = {"channels.beta", "head.bias", "head.prior.weight"}
    saved = changed(Tiny(TinyConfig()))
    save_part(saved, tmp_path, lambda key: key in has)
    model = load(Tiny, tmp_path)
    for key, value in model.state_dict().items():
        if key in has:
            assert torch.equal(value, saved.state_dict()[key]), key
    assert [getattr(model.channels, name)[0].item() for name in ("alpha", "omega")] == [
        pytest.approx(1.67326),
        2.0,
    ]
    assert_mixture_is_drawn([model.head.weight, model.head.prior.bias])


def test_what_the_models_own_initialisation_says_of_them_holds(tmp_path):
    save_part(TinyThatKnowsThem(TinyConfig()), tmp_path, lambda key: key.startswith("linear"))
    model = load(TinyThatKnowsThem, tmp_path)
    assert model.exo.alpha.item() == pytest.approx(0.3)
    assert_starting_values(model.channels)


def test_a_model_within_a_model_starts_where_documented(tmp_path):
    save_part(Nested(TinyConfig()), tmp_path, lambda key: key.startswith("inner.linear"))
    model = load(Nested, tmp_path)
    for module in (model.exo, model.inner.exo, model.inner.fixed):
        assert_starting_values(module)
    assert_mixture_is_drawn(model.inner.head.parameters())


def test_a_tied_decoder_is_the_checkpoints(tmp_path):
    class Tied(PreTrainedModel):
        config_class = TinyConfig
        _tied_weights_keys = {"head.weight": "embedding.weight"}  # noqa: RUF012

        def __init__(self, config):
            super().__init__(config)
            self.embedding = nn.Embedding(5, 4)
            self.head = MixtureOfSoftmaxes(2, 4, 5, decoder="shared")
            self.head.tie_weights(self.embedding)
            self.post_init()

    saved = Tied(TinyConfig(tie_word_embeddings=True))
    save_part(saved, tmp_path, lambda key: key.startswith("embedding"))
    model = load(Tied, tmp_path)
    assert model.head.weight is model.embedding.weight
    assert torch.equal(model.head.weight, saved.embedding.weight)
    assert_mixture_is_drawn([model.head.bias, *model.head.latent.parameters()])


def test_what_a_constructor_sets_stays_without_a_checkpoint():
    class Own(Tiny):
        def __init__(self, config):
            super().__init__(config)
            nn.init.constant_(self.exo.alpha, 0.3)
            self.post_init()

    assert Own(TinyConfig()).exo.alpha.item() == pytest.approx(0.3)


def test_initialisation_that_transformers_puts_off():
    """As it does for DeepSpeed's ZeRO-3."""
    with memory_full_of_nan(), no_init_weights():
        model = Tiny(TinyConfig())
    assert model.exo.alpha.isnan()
    model.initialize_weights()
    assert_starting_values(model.exo)
    assert_starting_values(model.channels)
    assert_mixture_is_drawn(model.head.parameters())


def test_pytorchs_own_way_off_the_meta_device():
    with torch.device("meta"):
        model = Tiny(TinyConfig())
    with memory_full_of_nan():
        model.to_empty(device="cpu")
    model.linear.reset_parameters()
    for module in (model.exo, model.channels, model.fixed, model.shared, model.head):
        module.reset_parameters()
    assert_starting_values(model.fixed)
    assert_mixture_is_drawn(model.head.parameters())
    # From here on it is a model like any other.
    with torch.no_grad():
        model.exo.alpha.fill_(0.3)
    model.init_weights()
    assert model.exo.alpha.item() == pytest.approx(0.3)


class BertWithExo(BertForSequenceClassification):
    """Whose constructor does the surgery, so that the configuration need not know."""

    def __init__(self, config):
        super().__init__(config)
        zeta.replace_activations(
            self, "gelu", lambda: Exo(learnable=True, device="cpu"), match_gain=True
        )


PLACE = MODELS["bert"][2].format(0)


def test_a_constructor_that_does_the_surgery_is_saved_and_loaded(tmp_path):
    model = BertWithExo(bert()[0].config)
    assert 0 < model.get_submodule(PLACE).gain.item() < 1
    changed(model).save_pretrained(tmp_path)
    loaded = load(BertWithExo, tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_a_constructor_that_does_the_surgery_takes_the_former_checkpoint(tmp_path):
    model, inputs = bert()
    model.save_pretrained(tmp_path)
    expected = BertWithExo(model.config).get_submodule(PLACE)
    loaded = load(BertWithExo, tmp_path)
    matched = loaded.get_submodule(PLACE)
    assert torch.equal(matched.gain, expected.gain)
    assert torch.equal(matched.shift, expected.shift)
    assert_starting_values(matched.activation)
    assert loaded(**inputs).loss.isfinite()


def test_a_surgery_is_repeated_before_its_weights_are_loaded(tmp_path):
    (model, inputs), (twin, _) = bert(), bert()
    for each in (model, twin):
        report = zeta.replace_activations(
            each, "gelu", "exo", match_gain=True, example_inputs=inputs
        )
    assert "hidden_act='gelu'" in str(report)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval()(**inputs).logits, model.eval()(**inputs).logits)


def test_example_inputs_on_the_meta_device_are_refused():
    with torch.device("meta"):
        model, inputs = bert()
        inputs = {name: tensor.to("meta") for name, tensor in inputs.items()}
    with pytest.raises(ValueError, match="example_inputs have no values to match by"):
        zeta.replace_activations(model, "gelu", "exo", match_gain=True, example_inputs=inputs)


def test_activations_on_the_meta_device_are_matched_by_their_starting_values():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    gains = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = nn.Sequential(nn.PReLU(), Scaled())
        report = zeta.replace_activations(
            model, nn.PReLU, lambda: Exo(learnable=True), match_gain=True
        )
        gains.append(report.replaced[0].gain)
    assert gains[0] == gains[1]
    with pytest.raises(ValueError, match="Scaled on the meta device cannot be matched: it has no"):
        zeta.replace_activations(model, Scaled, "exo", match_gain=True)


def test_matched_per_channel_keeps_what_the_checkpoint_has(tmp_path):
    class Own(PreTrainedModel):
        config_class = TinyConfig

        def __init__(self, config):
            super().__init__(config)
            gain, shift = torch.tensor(0.5, device="cpu"), torch.arange(4.0, device="cpu")
            self.matched = Matched(Exo(learnable=True), gain, shift)
            self.post_init()

    save_part(changed(Own(TinyConfig())), tmp_path, lambda key: key.endswith("gain"))
    model = load(Own, tmp_path)
    assert model.matched.gain.item() == 2.5
    assert model.matched.shift.tolist() == [0, 1, 2, 3]
    model.matched.reset_parameters()
    assert model.matched.gain.item() == 0.5


def test_values_that_were_lost_on_the_meta_device_are_named(tmp_path):
    class Own(Tiny):
        def __init__(self, config):
            super().__init__(config)
            self.matched = Matched(nn.ReLU(), torch.tensor(0.5), torch.zeros(()))
            self.post_init()

    model = Own(TinyConfig())
    model.save_pretrained(tmp_path / "whole")
    assert load(Own, tmp_path / "whole").matched.gain.item() == 0.5
    save_part(model, tmp_path / "part", lambda key: "matched" not in key)
    with pytest.raises(ValueError, match="the gain was given on the meta device"):
        load(Own, tmp_path / "part")


def test_a_model_that_ignores_its_configuration_says_so():
    zeta.register_transformers()
    model = GptOssForCausalLM(GptOssConfig(hidden_act="exo", **GPT_OSS))
    assert not any(isinstance(module, zeta.nn.FormulaModule) for module in model.modules())
    message = "says hidden_act='exo', but no module computes that: the model ignores this setting"
    for inputs in (None, TOKENS):
        with pytest.raises(ValueError, match=message):
            zeta.replace_activations(model, "silu", "exo", example_inputs=inputs)


def test_only_such_a_model_says_so():
    model, _ = llama(hidden_act="gelu_new")
    with pytest.raises(ValueError, match="nothing in LlamaForCausalLM matches") as error:
        zeta.replace_activations(model, "relu", "exo")
    assert "ignores" not in str(error.value)


FAMILIES = {  # every class of theirs that a name stands for
    "gelu": [
        *("gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_accurate", "quick_gelu"),
        *("gelu_pytorch_tanh", "gelu_python_tanh"),
    ],
    "silu": ["silu", "swish"],
    "mish": ["mish"],
    "squared_relu": ["relu2"],
    **{name: [name] for name in ("relu", "leaky_relu", "sigmoid", "tanh", "hardswish", "laplace")},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_name_finds_their_classes(name):
    model = nn.Sequential(*(theirs.ACT2FN[key] for key in FAMILIES[name]), nn.Linear(1, 1))
    report = zeta.replace_activations(model, name, "exo")
    assert len(report.replaced) == len(FAMILIES[name])
    with pytest.raises(ValueError, match="nothing in Sequential matches"):
        zeta.replace_activations(model, name, "exo")


def test_without_transformers_the_extra_is_named(clean_env):
    code = "import sys; sys.modules['transformers'] = None; import zeta; "
    run = subprocess.run(
        [sys.executable, "-c", code + "zeta.register_transformers()"],
        env=clean_env,
        capture_output=True,
        text=True,
    )
    assert "pip install 'zeta-nn[transformers]'" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("top_p", [None, 0.0, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("top_k", [None, 1, 7, 500])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_a_mixture_is_sampled_as_by_their_warpers(temperature, top_k, top_p):
    log_prob = (3 * torch.randn(20, 300)).log_softmax(-1).double()
    expected = TemperatureLogitsWarper(temperature)(None, log_prob)
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None:
        expected = TopPLogitsWarper(top_p)(None, expected)
    logits, classes = warped_logits(torch, torch.topk, log_prob, temperature, top_k, top_p)
    if classes is not None:
        logits = torch.full_like(log_prob, -torch.inf).scatter(1, classes, logits)
    torch.testing.assert_close(logits.softmax(-1), expected.softmax(-1))


@pytest.fixture(scope="module")
def mixture_llama():
    """The class that the guide shows."""
    page = Path(__file__).parents[2] / "docs/guides/transformers_head.md"
    namespace = {"__name__": "__main__"}
    exec(re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[1], namespace)
    return namespace["MixtureLlama"]


@pytest.fixture
def mixture_model(mixture_llama):
    config = LlamaConfig(vocab_size=24, tie_word_embeddings=True, num_mixtures=3, **SIZE)
    return mixture_llama(config).eval()


def test_the_guides_loss_is_theirs(mixture_model):
    """Of the log-probabilities as logits; ignored labels, and Trainer's count of a larger batch."""
    labels = TOKENS.clone()
    labels[1, 5:] = -100
    out = mixture_model(TOKENS, labels=labels)
    given = {"logits": out.logits, "labels": labels, "vocab_size": 24}
    torch.testing.assert_close(out.loss, mixture_model.loss_function(**given))
    count = torch.tensor(40)
    torch.testing.assert_close(
        mixture_model(TOKENS, labels=labels, num_items_in_batch=count).loss,
        mixture_model.loss_function(**given, num_items_in_batch=count),
    )
    mixture_model.train()
    alone = mixture_model(TOKENS, labels=labels)
    assert alone.logits is None
    torch.testing.assert_close(alone.loss, out.loss)
    losses = train(mixture_model, {"input_ids": TOKENS, "labels": TOKENS})
    assert losses[-1] < losses[0]


def test_the_guides_model_generates(mixture_model):
    """Greedily with a cache, as step by step without; and by sampling, as the head does."""
    mixture_model.generation_config.eos_token_id = None
    tokens = TOKENS[:, :4]
    made = mixture_model.generate(tokens, max_new_tokens=5, do_sample=False)
    for _ in range(5):
        best = mixture_model(tokens).logits[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, best], 1)
    assert torch.equal(made, tokens)

    options = {"temperature": 0.7, "top_k": 5, "top_p": 0.8}
    same = TOKENS[:1, :4].expand(4000, 4)
    generated = mixture_model.generate(same, max_new_tokens=1, do_sample=True, **options)[:, -1]
    with torch.no_grad():
        features = mixture_model.model(same[:1]).last_hidden_state[:, -1]
    ours = mixture_model.lm_head.sample(features, 4000, **options)[0]
    counts = torch.stack([torch.bincount(drawn, minlength=24) for drawn in (ours, generated)])
    counts = counts[:, counts.any(0)].numpy()
    assert 1 < counts.shape[1] <= 5
    assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3


@pytest.mark.parametrize("size", [30, 20])
def test_the_guides_model_is_saved_loaded_and_resized(mixture_model, mixture_llama, size, tmp_path):
    mixture_model.save_pretrained(tmp_path)
    model, info = mixture_llama.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    for name, tensor in mixture_model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    model.resize_token_embeddings(size)
    head = model.lm_head
    assert head.weight is model.get_input_embeddings().weight
    assert head.num_classes == model.config.vocab_size == size
    assert head.weight.shape == (size, 16)
    assert head.bias.shape == (size,)
    kept = min(size, 24)
    assert torch.equal(head.weight[:kept], mixture_model.lm_head.weight[:kept])
    assert torch.equal(head.bias[:kept], mixture_model.lm_head.bias[:kept])
    assert model(TOKENS.clamp(max=kept - 1)).logits.shape == (*TOKENS.shape, size)
    assert head.topk(torch.randn(3, 16), size)[1].max() == size - 1
    model.save_pretrained(tmp_path)
    assert mixture_llama.from_pretrained(tmp_path).lm_head.num_classes == size
