"""Gates: formulas of two inputs, a gate and what it lets through.

At a bound, clip has slope 0 and minimum a half.
"""

from zeta import math as zm
from zeta._formula import Formula, formula
from zeta.activations.elementwise import gelu, gelu_tanh, relu, selu, silu, squared_relu
from zeta.math import clip


@formula
def bilinear(gate, value):
    """The product of two linear maps. Source: Dauphin et al. 2017; Shazeer 2020, GLU variants."""
    return gate * value


@formula
def glu(gate, value):
    """The gated linear unit, σ(gate)·value. Source: Dauphin et al. 2017, gated convolutions."""
    return zm.sigmoid(gate) * value


@formula
def gtu(gate, value):
    """The gated tanh unit, σ(gate)·tanh(value); WaveNet's. Source: van den Oord et al. 2016."""
    return zm.sigmoid(gate) * zm.tanh(value)


@formula
def reglu(gate, value):
    """relu(gate)·value. Source: Shazeer 2020, GLU variants."""
    return relu(gate) * value


@formula
def geglu(gate, value):
    """gelu(gate)·value; ModernBERT's gate. Source: Shazeer 2020, GLU variants."""
    return gelu(gate) * value


@formula
def geglu_tanh(gate, value):
    """gelu_tanh(gate)·value; the gate of T5 1.1 and Gemma. Source: Shazeer 2020, GLU variants."""
    return gelu_tanh(gate) * value


@formula
def swiglu(gate, value):
    """silu(gate)·value; the gate of Llama, Mistral and Qwen. Source: Shazeer 2020, GLU variants."""
    return silu(gate) * value


@formula
def seglu(gate, value):
    """selu(gate)·value. Source: the TensorFlow package ActTensor; keras-mml has it too."""
    return selu(gate) * value


@formula
def sreglu(gate, value):
    """relu(gate)²·value. Source: NVIDIA's Transformer Engine, `nvte_sreglu`; So et al. 2021."""
    return squared_relu(gate) * value


@formula
def qgeglu(gate, value):
    """gate·σ(1.702·gate)·value, by GELU's fast approximation, of CLIP.

    Source: Hendrycks and Gimpel 2016; as a gate NVIDIA's Transformer Engine, `nvte_qgeglu`.
    """
    return gate * zm.sigmoid(1.702 * gate) * value


@formula
def drelu(gate, value):
    """relu(gate)·relu(value), mostly 0. Source: Song et al. 2024, Turbo Sparse."""
    return relu(gate) * relu(value)


@formula(limit=7.0, alpha=1.702)
def swiglu_oai(gate, value, limit, alpha):
    """A bounded SwiGLU, its value shifted by 1. Source: OpenAI 2025, gpt-oss."""
    gate = zm.minimum(gate, limit)
    return gate * zm.sigmoid(alpha * gate) * (clip(value, -limit, limit) + 1)


@formula(limit=10.0)
def swiglu_clamped(gate, value, limit):
    """SwiGLU of bounded inputs, of DeepSeek's models."""
    return silu(zm.minimum(gate, limit)) * clip(value, -limit, limit)


@formula(limit=7.0)
def swiglu_step(gate, value, limit):
    """SwiGLU of two bounded factors, of the Step models."""
    return zm.minimum(silu(gate), limit) * clip(value, -limit, limit)


@formula(gate_bound=4.0, value_bound=25.0)
def situ_glu(gate, value, gate_bound, value_bound):
    """SwiGLU with a smooth bound on each linear factor, of the Kimi models."""
    smooth = gate_bound * zm.tanh(gate * (1 / gate_bound)) * zm.sigmoid(gate)
    return smooth * (value_bound * zm.tanh(value * (1 / value_bound)))


__all__ = [name for name, value in globals().items() if isinstance(value, Formula)]
