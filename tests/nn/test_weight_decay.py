"""Parameters that weight decay leaves alone."""

import copy
import io
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from zeta.activations import leaky_relu
from zeta.nn import Exo, LearnableSELUVariation, MixtureOfSoftmaxes, parameter_groups


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.norm = nn.LayerNorm((2, 4))
        self.exo = Exo(learnable=True)
        self.selu = LearnableSELUVariation(num_parameters=4)
        self.leaky = leaky_relu.module(learnable=True)
        self.separate = MixtureOfSoftmaxes(3, 4, 6)
        self.shared = MixtureOfSoftmaxes(3, 4, 5, decoder="shared")
        self.shared.tie_weights(self.embedding)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


DECAYED = {
    "embedding.weight",  # and shared.weight
    "attention.in_proj_weight",
    "attention.out_proj.weight",
    "separate.weight",
    "separate.prior.weight",
    "shared.prior.weight",
    "shared.latent.weight",
}


def names(model, group):
    return [n for n, p in model.named_parameters() if any(p is q for q in group["params"])]


def test_groups():
    model = Model()
    decayed, not_decayed = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], not_decayed["weight_decay"]) == (0.1, 0.0)
    assert set(names(model, decayed)) == DECAYED
    trained = [p for p in model.parameters() if p.requires_grad]
    both = decayed["params"] + not_decayed["params"]
    assert len(both) == len(trained)
    assert set(both) == set(trained)
    assert [p for p in trained if p in set(decayed["params"])] == decayed["params"]


def test_a_mark_or_another_place_keeps_decay_away():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Module())
    model[0].weight._no_weight_decay = True
    model[2].bias_table = model[1].weight
    assert parameter_groups(model, 0.1)[0]["params"] == []


def test_negative_decay_is_refused():
    with pytest.raises(ValueError, match=r"must not be negative, got -0\.1"):
        parameter_groups(Exo(learnable=True), -0.1)


def test_adamw_shrinks_weights_and_not_activations():
    model = Model()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shrunk = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert shrunk == DECAYED


def pickled(model):
    torch.save(model, file := io.BytesIO())
    file.seek(0)
    return torch.load(file, weights_only=False)


def assigned(model):
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    return model


def reset(model):
    for module in (model.exo, model.selu, model.leaky, model.separate):
        module.reset_parameters()
    return model


CHANGES = {
    "none": lambda model: model,
    "copied": copy.deepcopy,
    "pickled": pickled,
    "converted": lambda model: model.to(torch.float64),
    "emptied": lambda model: model.to("meta").to_empty(device="cpu"),
    "reset": reset,
    "loaded": lambda model: (model.load_state_dict(model.state_dict()), model)[1],
    "assigned": assigned,
}


@pytest.mark.parametrize("change", CHANGES)
def test_parameters_are_marked_for_other_trainers(change):
    model = CHANGES[change](Model())
    marked = {n for n, p in model.named_parameters() if getattr(p, "_no_weight_decay", False)}
    activations = {n for n, _ in model.named_parameters() if n.startswith(("exo", "selu", "leaky"))}
    assert marked == activations | {"separate.bias", "shared.bias"}


@pytest.mark.skipif(not find_spec("accelerate"), reason="transformers' Trainer needs accelerate")
def test_transformers_trainer_takes_the_groups(tmp_path):
    from transformers import Trainer, TrainingArguments

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 4)
            self.exo = Exo(0.5, learnable=True, num_parameters=4)

        def forward(self, x, y):
            # By way of a gradient of 0: what changes is decay.
            return {"loss": 0 * (self.exo(self.linear(x)).sum(-1) - y).square().mean()}

    def trained(**options):
        torch.manual_seed(0)
        model = Regression()
        before = model.linear.weight.detach().clone()
        arguments = TrainingArguments(
            tmp_path, max_steps=2, weight_decay=0.1, learning_rate=0.1, report_to=[], use_cpu=True
        )
        optimizer = options.get("optimizer", lambda model: None)(model)
        data = [{"x": torch.randn(2), "y": torch.tensor(1.0)} for _ in range(16)]
        Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None)).train()
        assert (model.linear.weight.abs() < before.abs()).all()
        return model.exo.alpha.tolist()

    def ours(model):
        return torch.optim.AdamW(parameter_groups(model, 0.1), lr=0.1)

    assert trained(optimizer=ours) == [0.5] * 4
    assert trained()[0] < 0.5  # the Trainer's own optimizer
