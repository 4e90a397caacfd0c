"""A model survives being copied, pickled and saved; nothing but weights need be trusted."""

import copy
import pickle

import pytest
import torch

from networks import Classifier


@pytest.fixture
def trained():
    """A model whose weights are not the initial ones."""
    model = Classifier()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return model


def through_weights_only(model, path):
    torch.save(model.state_dict(), path)
    twin = Classifier()
    twin.load_state_dict(torch.load(path, weights_only=True))
    return twin


def through_safetensors(model, path):
    safetensors = pytest.importorskip("safetensors.torch", reason="pip install safetensors")
    safetensors.save_model(model, str(path))
    twin = Classifier()
    assert safetensors.load_model(twin, str(path)) == (set(), [])
    return twin


WAYS = {
    "deepcopy": lambda model, path: copy.deepcopy(model),
    "pickle": lambda model, path: pickle.loads(pickle.dumps(model)),
    "weights_only": through_weights_only,
    "safetensors": through_safetensors,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_twin_is_equal_and_shares_nothing(trained, tmp_path, way):
    twin = WAYS[way](trained, tmp_path / "model")
    x = torch.randn(5, 16)
    assert twin(x).equal(trained(x))
    assert not Classifier()(x).equal(trained(x))
    before = trained(x)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert trained(x).equal(before)


class LanguageModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 16)
        self.classifier = Classifier()
        self.classifier.head.tie_weights(self.embedding)


def test_a_tied_decoder_stays_tied(tmp_path):
    """As safetensors' `save_model` keeps it; and pickle and deepcopy."""
    safetensors = pytest.importorskip("safetensors.torch", reason="pip install safetensors")

    model, twin = LanguageModel(), LanguageModel()
    safetensors.save_model(model, str(tmp_path / "model"))
    safetensors.load_model(twin, str(tmp_path / "model"))
    for copied in (twin, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.classifier.head.weight is copied.embedding.weight
        assert copied.embedding.weight.equal(model.embedding.weight)
