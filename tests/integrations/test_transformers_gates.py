"""Gates in transformers' models: the same outputs and gradients, and every way to run them."""

import copy
import math
from importlib.util import find_spec

import pytest
import torch
import transformers

import zeta
from zeta import activations
from zeta.integrations.pytorch_gates import FusedGate
from zeta.nn import GatedUnit

SIZE = {
    "vocab_size": 24,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
GROUPED = {**SIZE, "num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
TOKENS = torch.arange(24).reshape(2, 12)
LAYERS = "model.layers.{}."


def t5():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    return transformers.T5Config(
        vocab_size=24, feed_forward_proj="gated-gelu", decoder_start_token_id=0, **sizes
    )


def modernbert():
    tokens = {f"{kind}_token_id": 0 for kind in ("pad", "eos", "bos", "cls", "sep")}
    return transformers.ModernBertConfig(**SIZE, **tokens)


MODELS = {  # the class, its configuration, the gate, and its places in every layer
    "LlamaForCausalLM": (transformers.LlamaConfig, "swiglu", ["mlp.act_fn"]),
    "MistralForCausalLM": (transformers.MistralConfig, "swiglu", ["mlp.act_fn"]),
    "Qwen3ForCausalLM": (transformers.Qwen3Config, "swiglu", ["mlp.act_fn"]),
    "GemmaForCausalLM": (transformers.GemmaConfig, "geglu_tanh", ["mlp.act_fn"]),
    "Phi3ForCausalLM": (transformers.Phi3Config, "swiglu", ["mlp.activation_fn"]),
    "MixtralForCausalLM": (transformers.MixtralConfig, "swiglu", ["mlp.experts.act_fn"]),
    "Qwen2MoeForCausalLM": (
        transformers.Qwen2MoeConfig,
        "swiglu",
        ["mlp.experts.act_fn", "mlp.shared_expert.act_fn"],
    ),
    "Llama4ForCausalLM": (
        transformers.Llama4TextConfig,
        "swiglu",
        ["feed_forward.experts.act_fn", "feed_forward.shared_expert.activation_fn"],
    ),
    "ModernBertForMaskedLM": (modernbert, "geglu", ["mlp.act"]),
    "T5ForConditionalGeneration": (t5, "geglu_tanh", []),
}


def build(name, **options):
    make = MODELS[name][0]
    sizes = {} if make in (t5, modernbert) else {**GROUPED, **EXPERTS, "pad_token_id": 0}
    torch.manual_seed(0)
    return getattr(transformers, name)(make(**sizes), **options)


def run(model, **options):
    """The logits and the gradients by every parameter that has one."""
    model.zero_grad()
    out = model(input_ids=TOKENS, labels=TOKENS, **options)
    out.loss.backward()
    gradients = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    return {"logits": out.logits.detach()} | gradients


def exactly(model):
    """The same in double precision."""
    exact = copy.deepcopy(model).double()
    if any(name.endswith("experts") for name, _ in model.named_modules()):
        exact.set_experts_implementation("eager")  # grouped_mm takes no doubles
    return run(exact)


def assert_same(now, before, exact):
    """To three times the error of the former model, or four units."""
    assert now.keys() == before.keys() == exact.keys()
    for key, true in exact.items():
        error, former = ((values[key] - true).abs().max() for values in (now, before))
        allowed = 3 * former + 4 * torch.finfo(now[key].dtype).eps * true.abs().max()
        assert error <= allowed, key
        assert now[key].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_the_same_outputs_and_gradients(name, dtype):
    model = build(name).to(dtype).eval()
    before, exact = run(model), exactly(model)
    former = copy.deepcopy(model.state_dict())
    report = zeta.replace_gates(model)
    _, gate, places = MODELS[name]
    expected = [f"{LAYERS.format(i)}{place}" for i in range(2) for place in places]
    if name.startswith("T5"):
        layers = [("encoder", i, 1) for i in range(2)] + [("decoder", i, 2) for i in range(2)]
        expected = [f"{part}.block.{i}.layer.{j}.DenseReluDense.act" for part, i, j in layers]
    assert [r.name for r in report.replaced] == expected
    assert {r.new for r in report.replaced} == {f"GatedUnit({gate})"}
    assert [left.partition(",")[0] for left in report.left] == (
        ["head.act"] if name.startswith("ModernBert") else []
    )
    assert model.state_dict().keys() == former.keys()
    assert_same(run(model), before, exact)
    report.undo()
    assert not any(isinstance(m, FusedGate) for m in model.modules())
    again = run(model)
    assert all(torch.equal(again[key], value) for key, value in before.items())


@pytest.mark.parametrize("way", ["eager", "batched_mm", "grouped_mm"])
def test_experts_in_every_way(way):
    model = build("MixtralForCausalLM").eval()
    model.set_experts_implementation(way)
    before, exact = run(model), exactly(model)
    zeta.replace_gates(model)
    assert_same(run(model), before, exact)


def saved_bytes(model):
    """What autograd keeps, but for parameters, each piece of memory once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            kept[memory.data_ptr()] = memory
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=TOKENS)
    return sum(memory.nbytes() for memory in kept.values())


@pytest.mark.parametrize(
    ("name", "layers"), [("LlamaForCausalLM", 2), ("Phi3ForCausalLM", 2), ("GemmaForCausalLM", 2)]
)
def test_keeps_one_tensor_less_in_every_layer(name, layers):
    model = build(name)
    before = saved_bytes(model)
    zeta.replace_gates(model)
    assert before - saved_bytes(model) == layers * TOKENS.numel() * SIZE["intermediate_size"] * 4


def test_a_gate_of_ones_own_in_a_model():
    """gpt-oss's gate in a Llama, learned."""
    model = build("LlamaForCausalLM")
    report = zeta.replace_gates(model, lambda: GatedUnit(activations.swiglu_oai, learnable=True))
    assert len(report.replaced) == 2
    mlp, x = model.model.layers[0].mlp, torch.randn(3, 16)
    expected = mlp.down_proj(activations.swiglu_oai(mlp.gate_proj(x), mlp.up_proj(x)))
    torch.testing.assert_close(mlp(x), expected)
    gradients = run(model)
    assert sum(key.endswith(("act_fn.activation.limit", "alpha")) for key in gradients) == 4


class WithGates(transformers.LlamaForCausalLM):
    """Saved and loaded like any other model."""

    def __init__(self, config):
        super().__init__(config)
        zeta.replace_gates(self, lambda: GatedUnit(activations.swiglu_oai, learnable=True))


def test_saving_and_loading(tmp_path):
    model = build("LlamaForCausalLM").eval()
    expected = model(input_ids=TOKENS).logits
    report = zeta.replace_gates(model)
    model.save_pretrained(tmp_path / "same")
    assert report.configured == "hidden_act='silu'"
    loaded, info = type(model).from_pretrained(tmp_path / "same", output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(loaded(input_ids=TOKENS).logits, expected)

    model = WithGates(build("LlamaForCausalLM").config).eval()
    with torch.no_grad():
        model.model.layers[1].mlp.act_fn.activation.limit.fill_(0.25)
    model.save_pretrained(tmp_path / "own")
    loaded = WithGates.from_pretrained(tmp_path / "own")
    assert torch.equal(loaded(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits)
    build("LlamaForCausalLM").save_pretrained(tmp_path / "former")
    unit = WithGates.from_pretrained(tmp_path / "former").model.layers[1].mlp.act_fn.activation
    assert (unit.limit.item(), unit.alpha.item()) == (7, pytest.approx(1.702))


def test_a_model_on_the_meta_device():
    with torch.device("meta"):
        model = build("LlamaForCausalLM")
    assert len(zeta.replace_gates(model).replaced) == 2
    model.to_empty(device="cpu").load_state_dict(build("LlamaForCausalLM").state_dict())
    former = build("LlamaForCausalLM")
    # What is no parameter, the rotary embedding's, has no values after `to_empty`.
    model.model.rotary_emb = former.model.rotary_emb
    torch.testing.assert_close(model(TOKENS).logits, former(TOKENS).logits)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Phi3ForCausalLM", "MixtralForCausalLM"])
def test_gradient_checkpointing(name):
    model = build(name).train()
    zeta.replace_gates(model)
    expected = run(model)
    model.activation_checkpointing_enable()
    for key, value in run(model, use_cache=False).items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "ModernBertForMaskedLM"])
def test_autocast(name):
    model = build(name).eval()
    exact = exactly(model)
    with torch.autocast("cpu", torch.bfloat16):
        before = run(model)
        zeta.replace_gates(model)
        now = run(model)
    assert_same(now, before, exact)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Phi3ForCausalLM", "ModernBertForMaskedLM"])
def test_a_feed_forward_layer_compiles_as_one_graph(name):
    model = build(name).eval()
    zeta.replace_gates(model)
    (layer,) = (m for n, m in model.named_modules() if n.endswith("layers.0.mlp"))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 16, requires_grad=True)
    for f in (lambda y: y, lambda y: torch.autograd.grad(y.square().sum(), x)[0]):
        torch.testing.assert_close(f(compiled(x)), f(layer(x)))


def test_a_whole_model_compiles_as_one_graph():
    model = build("LlamaForCausalLM").eval()
    zeta.replace_gates(model)
    expected = run(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out = compiled(input_ids=TOKENS, use_cache=False)
    torch.testing.assert_close(out.logits, expected["logits"])


def test_generates_the_same_tokens():
    model = build("LlamaForCausalLM").eval()
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = model.generate(TOKENS[:, :4], **options)
    zeta.replace_gates(model)
    assert torch.equal(model.generate(TOKENS[:, :4], **options), expected)


@pytest.mark.skipif(not find_spec("accelerate"), reason="transformers' Trainer needs accelerate")
def test_a_step_of_the_trainer(tmp_path):
    def trained(surgery):
        model = build("LlamaForCausalLM")
        surgery(model)
        data = [{"input_ids": row, "labels": row} for row in TOKENS]
        arguments = transformers.TrainingArguments(
            tmp_path, max_steps=2, report_to=[], use_cpu=True, save_strategy="no", seed=0
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=data)
        assert math.isfinite(trainer.train().training_loss)
        return model.state_dict()

    former, ours = trained(lambda model: None), trained(zeta.replace_gates)
    for key, value in former.items():
        # AdamW's first steps are as long for a small gradient as for a large one.
        torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=1e-5)


def test_a_model_without_such_gates():
    config = transformers.BertConfig(**SIZE)
    with pytest.raises(ValueError, match=r"BertModel is act\(gate\) \* value .*BertIntermediate"):
        zeta.replace_gates(transformers.BertModel(config))
