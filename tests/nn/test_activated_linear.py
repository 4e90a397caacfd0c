"""A formula and a linear map as one module."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from zeta import activations
from zeta.nn import ActivatedLinear, FormulaModule, GatedUnit


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("f", [activations.exo, activations.swiglu_oai])
def test_equal_to_two_modules(f, learnable):
    block = ActivatedLinear(6, 3, f, learnable=learnable)
    kind = FormulaModule if len(f.inputs) == 1 else GatedUnit
    plain = nn.Sequential(kind(f, learnable=learnable), nn.Linear(6, 3))
    plain[1].load_state_dict(block.state_dict(), strict=False)
    x = torch.randn(4, 6 * len(f.inputs), requires_grad=True)
    results = []
    for module, linear in ((block, block), (plain, plain[1])):
        module.zero_grad()
        y = module(x)
        y.square().sum().backward()
        own = [
            p.grad for n, p in module.named_parameters() if "weight" not in n and "bias" not in n
        ]
        results.append((y, linear.weight.grad, linear.bias.grad, *own, x.grad))
        x.grad = None
    torch.testing.assert_close(*results)
    assert len(results[0]) == 4 + learnable * len(f.parameters)


def test_two_inputs_and_what_it_is_saved_as():
    block = ActivatedLinear(6, 3, activations.swiglu, bias=False)
    packed = torch.randn(2, 12)
    torch.testing.assert_close(block(packed), block(*packed.chunk(2, -1)))
    assert list(block.state_dict()) == ["weight"]


@pytest.mark.skipif(not find_spec("accelerate"), reason="transformers' Trainer needs accelerate")
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_step_of_transformers_trainer(checkpointed, tmp_path):
    """As of the two modules; saved and loaded again by it."""
    from safetensors.torch import load_file
    from transformers import Trainer, TrainingArguments
    from transformers.models.llama import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 11}
    config = LlamaConfig(**size, num_attention_heads=2, num_key_value_heads=1)
    tokens = torch.randint(11, (8, 6))
    data = [{"input_ids": row, "labels": row} for row in tokens]

    class Gated(nn.Module):
        """One projection, then a gate and a linear map: as Llama's, its two projections in one."""

        def __init__(self, mlp):
            super().__init__()
            both = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
            self.gate_up = nn.Linear(16, 48, bias=False)
            self.down = ActivatedLinear(24, 16, activations.swiglu, bias=False)
            with torch.no_grad():
                self.gate_up.weight.copy_(both)
                self.down.weight.copy_(mlp.down_proj.weight)

        def forward(self, x):
            return self.down(self.gate_up(x))

    def trained(gated):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        if gated:
            for layer in model.model.layers:
                layer.mlp = Gated(layer.mlp)
        if checkpointed:
            new, old = (f"{kind}_checkpointing_enable" for kind in ("activation", "gradient"))
            getattr(model, new if hasattr(model, new) else old)()
        arguments = TrainingArguments(
            tmp_path / str(gated),
            max_steps=1,
            learning_rate=0.1,
            optim="sgd",
            report_to=[],
            use_cpu=True,
        )
        trainer = Trainer(model, arguments, train_dataset=data)
        trainer.train()
        trainer.save_model()
        return model

    ours, theirs = trained(True), trained(False)
    mlp, expected = ours.model.layers[0].mlp, theirs.model.layers[0].mlp
    both = torch.cat([expected.gate_proj.weight, expected.up_proj.weight])
    torch.testing.assert_close(mlp.gate_up.weight, both)
    torch.testing.assert_close(mlp.down.weight, expected.down_proj.weight)
    saved = load_file(tmp_path / "True" / "model.safetensors")
    assert torch.equal(saved["model.layers.0.mlp.down.weight"], mlp.down.weight)
