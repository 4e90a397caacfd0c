"""The catalogue: every activation function and every gate once, as a formula.

To add one, write it here. Functions, modules, derivatives, kernels, plots, references and tests
follow from these lines; no other file spells the maths.

A formula never overflows on the way to a finite result: z = (x - mu) · (1/s) rather than
(x - mu) / s, whose derivative by s is 0·inf once z has overflowed; a gate clipped where it is
already exactly 0 or 1 before it is cubed.
"""

import math

from zeta import math as zm
from zeta._errors import UnknownNameError
from zeta._formula import Formula, formula
from zeta.math import clip, erfc, expm1, piecewise, sin

#: SELU's slope at 0 from below over its slope above, 1.6732632…, of Klambauer et al. 2017.
SELU_ALPHA = 1.6732632423543772848170429916717
#: SELU's slope above 0, 1.0507009…, from the same paper.
SELU_SCALE = 1.0507009873554804934193349852946

_SQRT_HALF = math.sqrt(0.5)


@formula(alpha=1.0)
def exo(x, alpha):
    """A sigmoid gate between the identity and tanh.

    Linear for x → +∞; tends to -1 for x → -∞ (alpha > 0). Source: the Exo document of Zeta.
    """
    gate = zm.sigmoid(alpha * x)
    return gate * x + (1 - gate) * zm.tanh(x)


@formula(lambda_=1.0507, alpha=1.67326, beta=1.0, gamma=0.1, omega=2.0, learnable=True)
def learnable_selu_variation(x, lambda_, alpha, beta, gamma, omega):
    """SELU with a sine on its negative side and five learnable scalars.

    Oscillates within λ(-α ± γ) for x → -∞, so it has no limit there.
    Source: Apoorv 2024, LearnableSELUVariation.
    """
    return lambda_ * piecewise(
        x,
        positive=lambda x: x,
        otherwise=lambda x: alpha * expm1(beta * x) + gamma * sin(omega * x),
    )


@formula(mu=0.707107, sigma=0.282095)
def laplace(x, mu, sigma):
    """The normal distribution function of mean mu and standard deviation sigma.

    MEGA's attention activation, an approximation of squared ReLU with a bounded range.
    Source: Ma et al. 2022, Mega: Moving Average Equipped Gated Attention.
    """
    z = (x - mu) * (_SQRT_HALF / sigma)
    return 0.5 * erfc(-z)


@formula
def relu(x):
    """The positive part of x. Source: Nair and Hinton 2010."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: 0)


@formula(negative_slope=0.01)
def leaky_relu(x, negative_slope):
    """ReLU with a small slope on its negative side. Source: Maas et al. 2013."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: negative_slope * x)


@formula(alpha=1.0)
def elu(x, alpha):
    """The exponential linear unit. Source: Clevert et al. 2016."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: alpha * expm1(x))


@formula(alpha=SELU_ALPHA, scale=SELU_SCALE)
def selu(x, alpha, scale):
    """The self-normalising exponential linear unit. Source: Klambauer et al. 2017."""
    return scale * piecewise(x, positive=lambda x: x, otherwise=lambda x: alpha * expm1(x))


@formula
def gelu(x):
    """x times the standard normal distribution function. Source: Hendrycks and Gimpel 2016."""
    return x * (0.5 * erfc(-_SQRT_HALF * x))


@formula
def gelu_tanh(x):
    """GELU's tanh approximation, 0.5·x·(1 + tanh u) written as x·sigmoid(2u).

    u = √(2/π)·(x + 0.044715·x³).

    Source: Hendrycks and Gimpel 2016.
    """
    c = clip(x, -32, 32)  # where the gate is 0 or 1 even in float64
    k = 2 * math.sqrt(2 / math.pi)
    return x * zm.sigmoid(c * (k + 0.044715 * k * (c * c)))


@formula
def silu(x):
    """x times its own sigmoid, also called swish. Source: Elfwing et al. 2017."""
    return x * zm.sigmoid(x)


@formula
def mish(x):
    """A smooth gate like SiLU's, x·tanh(softplus(x)). Source: Misra 2019."""
    return x * zm.tanh(zm.softplus(x))


@formula
def softplus(x):
    """A smooth ReLU, log(1 + e^x). Source: Dugas et al. 2001."""
    return zm.softplus(x)


@formula
def tanh(x):
    """The hyperbolic tangent."""
    return zm.tanh(x)


@formula
def sigmoid(x):
    """The logistic function, 1 / (1 + e^-x)."""
    return zm.sigmoid(x)


@formula
def hardswish(x):
    """SiLU with a piecewise linear gate. Source: Howard et al. 2019."""
    return x * ((clip(x, -3, 3) + 3) / 6)


@formula
def squared_relu(x):
    """The square of ReLU. Source: So et al. 2021, Primer."""
    return piecewise(x, positive=lambda x: x * x, otherwise=lambda x: 0)


# ---- Gates ------------------------------------------------------------------------------------
#
# At a bound, clip has slope 0 and minimum a half.


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


# ---- Logits -----------------------------------------------------------------------------------
#
# What stands between logits and a softmax. A formula of which p_v ∝ g(x_v) is given is log g here.


@formula(tau=1.0)
def temperature(x, tau):
    """x / tau: flatter for a larger tau. Source: Hinton et al. 2015, Distilling the Knowledge."""
    return x * (1 / tau)


@formula(cap=30.0)
def softcap(x, cap):
    """A smooth bound, cap·tanh(x / cap); Gemma 2's. Source: Bello et al. 2016; Gemma Team 2024."""
    return cap * zm.tanh(x * (1 / cap))


@formula
def sigsoftmax(x):
    """p ∝ e^x·σ(x), whose logarithm is x - log(1 + e^-x). Source: Kanai et al. 2018, Sigsoftmax."""
    return x - zm.softplus(-x)


@formula
def taylor_softmax(x):
    """p ∝ 1 + x + x²/2. Source: de Brébisson and Vincent 2016, the spherical loss family."""
    c = clip(x, -1e17, 1e17)  # beyond, the square is all, and would overflow
    beyond = zm.log(zm.maximum(abs(x), 1e17)) - math.log(1e17)
    return zm.log1p(c + 0.5 * (c * c)) + 2 * beyond


@formula
def stablemax(x):
    """p ∝ 1 + x for x ≥ 0, else 1 / (1 - x).

    Source: Prieto et al. 2025, Grokking at the Edge of Numerical Stability.
    """
    return piecewise(x, positive=lambda x: zm.log1p(x), otherwise=lambda x: -zm.log1p(-x))


@formula(scale=23.0, shift=5.0, width=7.5)
def shifted_sigmoid(x, scale, shift, width):
    """scale·σ((x + shift) / width), a smooth bound. Source: Jordan et al. 2024, modded-nanogpt."""
    return scale * zm.sigmoid((x + shift) * (1 / width))


_LOGITS = (temperature, softcap, sigsoftmax, taylor_softmax, stablemax, shifted_sigmoid)
#: Every formula made for logits, which has one input, by name.
LOGITS: dict[str, Formula] = {f.name: f for f in _LOGITS}

_ALL = {k: f for k, f in globals().items() if isinstance(f, Formula) and k not in LOGITS}
#: Every activation, a formula of one input, by name.
CATALOGUE: dict[str, Formula] = {k: f for k, f in _ALL.items() if len(f.inputs) == 1}
#: Every gate, a formula of the inputs ``gate`` and ``value``, by name.
GATES: dict[str, Formula] = {k: f for k, f in _ALL.items() if len(f.inputs) == 2}


@formula
def identity(x):
    """x itself: what stands between logits and a softmax where nothing else does."""
    return x


__all__ = [
    *("CATALOGUE", "GATES", "LOGITS", "SELU_ALPHA", "SELU_SCALE", "get"),
    *(*CATALOGUE, *GATES, *LOGITS),
]


def get(name: str) -> Formula:
    """The catalogue's formula of that name, an activation, a gate or one for logits.

    Raises:
        UnknownNameError: there is none; the message suggests the nearest.

    Example:
        >>> from zeta import activations
        >>> activations.get("exo")
        exo(x, alpha=1)
    """
    known = _ALL | LOGITS
    if name not in known:
        raise UnknownNameError("activation", name, known)
    return known[name]
