"""Gates: formulas of two inputs, a gate and what it lets through.

At a bound, clip has slope 0 and minimum a half.
"""

import math

from zeta import math as zm
from zeta._formula import Formula, formula
from zeta.activations.elementwise import gelu, gelu_tanh, relu, selu, silu, squared_relu
from zeta.math import clip, erf, erfc, piecewise

_SQRT_HALF = math.sqrt(0.5)


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
    """The gated tanh unit, σ(gate)·tanh(value).

    Used by: WaveNet.
    Source: van den Oord et al. 2016, WaveNet.
    """
    return zm.sigmoid(gate) * zm.tanh(value)


@formula
def reglu(gate, value):
    """relu(gate)·value. Source: Shazeer 2020, GLU variants."""
    return relu(gate) * value


@formula
def geglu(gate, value):
    """gelu(gate)·value. Used by: ModernBERT. Source: Shazeer 2020, GLU variants."""
    return gelu(gate) * value


@formula
def geglu_tanh(gate, value):
    """gelu_tanh(gate)·value. Used by: T5 1.1, Gemma. Source: Shazeer 2020, GLU variants."""
    return gelu_tanh(gate) * value


@formula
def swiglu(gate, value):
    """silu(gate)·value. Used by: Llama, Mistral, Qwen. Source: Shazeer 2020, GLU variants."""
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
    """relu(gate)·relu(value), mostly 0. Used by: TurboSparse. Source: Song et al. 2024."""
    return relu(gate) * relu(value)


@formula(limit=7.0, alpha=1.702)
def swiglu_oai(gate, value, limit, alpha):
    """A bounded SwiGLU, its value shifted by 1. Used by: gpt-oss. Source: OpenAI 2025."""
    gate = zm.minimum(gate, limit)
    return gate * zm.sigmoid(alpha * gate) * (clip(value, -limit, limit) + 1)


@formula(limit=10.0)
def swiglu_clamped(gate, value, limit):
    """SwiGLU of bounded inputs, silu(min(gate, L))·clip(value, ±L). Used by: DeepSeek."""
    return silu(zm.minimum(gate, limit)) * clip(value, -limit, limit)


@formula(limit=7.0)
def swiglu_step(gate, value, limit):
    """SwiGLU of bounded factors, min(silu(gate), L)·clip(value, ±L). Used by: Step."""
    return zm.minimum(silu(gate), limit) * clip(value, -limit, limit)


@formula(gate_bound=4.0, value_bound=25.0)
def situ_glu(gate, value, gate_bound, value_bound):
    """SwiGLU with a smooth bound on each linear factor. Used by: Kimi K3."""
    smooth = gate_bound * zm.tanh(gate * (1 / gate_bound)) * zm.sigmoid(gate)
    return smooth * (value_bound * zm.tanh(value * (1 / value_bound)))


@formula(beta=1.0, learnable=True)
def swish_glu(gate, value, beta):
    """SwiGLU with a learned sharpness, gate·σ(β·gate)·value.

    Source: Shazeer 2020, GLU Variants Improve Transformer.
    """
    return gate * zm.sigmoid(beta * gate) * value


@formula(alpha=0.0, learnable=True)
def xswiglu(gate, value, alpha):
    """GLU whose gate goes beyond 0 and 1, ((1 + 2α)·σ(gate) - α)·value.

    Source: Huang 2024, Expanded Gating Ranges Improve Activation Functions.
    """
    return (zm.sigmoid(gate) + alpha * zm.tanh(0.5 * gate)) * value


@formula(alpha=0.0, learnable=True)
def xgeglu(gate, value, alpha):
    """((1 + 2α)·Φ(gate) - α)·value, a gate by the normal distribution.

    Source: Huang 2024, Expanded Gating Ranges Improve Activation Functions.
    """
    z = _SQRT_HALF * gate
    return (0.5 * erfc(-z) + alpha * erf(z)) * value


@formula(alpha=0.0, learnable=True)
def xatglu(gate, value, alpha):
    """((1 + 2α)·(atan(gate)/π + ½) - α)·value, a gate by the arctangent.

    Source: Huang 2024, Expanded Gating Ranges Improve Activation Functions.
    """
    wide = (1 + 2 * alpha) * (1 / math.pi)
    return value * piecewise(
        gate,
        (-0.75,),
        lambda x: alpha * (2 / math.pi) * zm.atan(x) - zm.atan(1 / x) * (1 / math.pi),
        lambda x: 0.5 + wide * zm.atan(x),
    )


@formula(m=3.0)
def powlu_glu(gate, value, m):
    """PowLU's gate: gate^(m/(√gate + 1))·σ(gate)·value, and silu(gate)·value below 0.

    Source: Jiang et al. 2026, PowLU: An Activation Function for Stable Pre-Training of LLMs.
    """

    def power(x):
        x = clip(x, 1e-36, 1e37)  # beyond, it is 0 and 1
        return x ** (m / (zm.sqrt(x) + 1))

    factor = piecewise(gate, positive=power, otherwise=lambda x: x)
    return factor * zm.sigmoid(gate) * value


__all__ = [name for name, value in globals().items() if isinstance(value, Formula)]
