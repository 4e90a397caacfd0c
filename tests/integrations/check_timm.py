"""timm's models; run by test_timm.py in a process of its own."""

import pytest
import torch
from torch.library import Library

# A torchvision without its compiled part, which needs CUDA, is imported if these are declared.
_LIBRARY = Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402

import zeta  # noqa: E402
from zeta.integrations import act_layer  # noqa: E402
from zeta.nn import Exo  # noqa: E402

SURGERY = [  # a model, the activation, how many modules of it
    ("resnet18", "relu", 17),
    ("efficientnet_b0", "silu", 49),
    ("mobilenetv3_small_050", "hardswish", 19),
    ("convnext_atto", "gelu", 12),
    ("vit_tiny_patch16_224", "gelu", 12),
    ("mixer_s16_224", "gelu", 16),
]
# Models that pass `inplace`, that do not, and that join it with normalisation.
ACT_LAYERS = ["resnet18", "vit_tiny_patch16_224", "efficientnet_b0", "regnety_002", "resnetv2_50"]


def exos(model):
    return [module for module in model.modules() if isinstance(module, Exo)]


@pytest.mark.parametrize(("architecture", "former", "count"), SURGERY)
def test_surgery(architecture, former, count):
    model = timm.create_model(architecture, num_classes=3)
    report = zeta.replace_activations(model, former, Exo)
    assert len(report.replaced) == len(exos(model)) == count
    images = torch.randn(2, 3, 224, 224)
    loss = model(images).square().mean()
    loss.backward()
    assert torch.isfinite(loss)
    report.undo()
    assert not exos(model)


@pytest.mark.parametrize("architecture", ACT_LAYERS)
def test_act_layer(architecture):
    model = timm.create_model(architecture, num_classes=3, act_layer=act_layer("exo"))
    assert exos(model)
    assert len(set(map(id, exos(model)))) == len(exos(model))
    assert torch.isfinite(model.eval()(torch.randn(1, 3, 224, 224))).all()


def test_the_class_alone_does_not_take_inplace():
    with pytest.raises(TypeError, match="inplace"):
        timm.create_model("resnet18", act_layer=Exo)


def test_act_layer_hands_on_the_rest():
    build = act_layer(Exo)
    assert build(inplace=True, alpha=0.5).alpha == 0.5
    assert act_layer("mish")(inplace=False).formula is zeta.activations.mish
