"""Activations whose parameters modules train by default."""

import math

from zeta import math as zm
from zeta._formula import Formula, formula
from zeta.activations.elementwise import relu
from zeta.math import clip, cos, erf, erfc, expm1, hypot, piecewise, sin, sinc

_SQRT_HALF = math.sqrt(0.5)


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


@formula(a=0.25, learnable=True)
def prelu(x, a):
    """The parametric ReLU: x above 0, a·x below.

    Used by: PyTorch and Keras, as a layer.

    Source: He et al. 2015, Delving Deep into Rectifiers.
    """
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: a * x)


@formula(gamma=0.0, beta=0.25, zeta=0.0, learnable=True)
def rprelu(x, gamma, beta, zeta):
    """A PReLU whose kink moves, prelu(x - γ) + ζ, of the slope β below it.

    Used by: ReActNet.

    Source: Liu et al. 2020, ReActNet.
    """
    return zeta + piecewise(x - gamma, positive=lambda x: x, otherwise=lambda x: beta * x)


@formula(b=0.0, learnable=True)
def flexible_relu(x, b):
    """The flexible ReLU, relu(x) + b.

    Used by: mlpack.

    Source: Qiu et al. 2017, FReLU: Flexible Rectified Linear Units.
    """
    return relu(x) + b


@formula(alpha=0.9, beta=2.0, learnable=True)
def arelu(x, alpha, beta):
    """The attention-based ReLU: (1 + σ(β))·x above 0, α·x below, with α within [0.01, 0.99].

    Source: Chen et al. 2020, AReLU.
    """
    above, below = 1 + zm.sigmoid(beta), clip(alpha, 0.01, 0.99)
    return piecewise(x, positive=lambda x: above * x, otherwise=lambda x: below * x)


@formula(t_left=0.0, a_left=0.5, t_right=2.5, a_right=1.0, learnable=True)
def srelu(x, t_left, a_left, t_right, a_right):
    """The S-shaped ReLU: x between two thresholds, beyond them lines of slopes a.

    keras-contrib draws a_left and t_right at random, with means 0.5 and 2.5.

    Used by: keras-contrib.

    Source: Jin et al. 2015, Deep Learning with S-shaped Rectified Linear Activation Units.
    """
    return piecewise(
        x,
        (t_left, t_right),
        lambda x: t_left + a_left * (x - t_left),
        lambda x: x,
        lambda x: t_right + a_right * (x - t_right),
    )


@formula(a=(0.2,), b=(0.5,), learnable=True)
def apl(x, a, b):
    """The adaptive piecewise linear unit, relu(x) + Σ aₛ·relu(bₛ - x).

    Source: Agostinelli et al. 2014, Learning Activation Functions.
    """
    return relu(x) + sum(slope * relu(hinge - x) for slope, hinge in zip(a, b, strict=True))


@formula(alpha=10.0, learnable=True)
def pact(x, alpha):
    """Parameterized clipping, x kept within [0, α].

    Source: Choi et al. 2018, PACT.
    """
    return clip(x, 0, alpha)


@formula(scale=0.8944, bias=-0.4472, learnable=True)
def star_relu(x, scale, bias):
    """A squared ReLU, scale·relu(x)² + bias, of mean 0 and variance 1 for a standard normal x.

    Used by: CAFormer, ConvFormer.

    Source: Yu et al. 2022, MetaFormer Baselines for Vision.
    """
    return bias + piecewise(x, positive=lambda x: (scale * x) * x, otherwise=lambda x: 0)


@formula(a=(0.0, 1 / 3, 1 / 3, 1 / 3), learnable=True)
def poly_relu(x, a):
    """A polynomial of ReLU, Σ aᵢ·relu(x)ⁱ.

    Source: Zhuo et al. 2024, Polynomial Composition Activations.
    """
    return piecewise(x, positive=lambda x: _polynomial(x, a), otherwise=lambda x: a[0])


def _polynomial(x, coefficients):
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


@formula(a=1.0, b=1.0, learnable=True)
def pelu(x, a, b):
    """The parametric ELU: (a / b)·x above 0, a·(e^(x/b) - 1) below.

    Source: Trottier et al. 2016, Parametric Exponential Linear Unit.
    """
    return a * piecewise(x * (1 / b), positive=lambda x: x, otherwise=expm1)


@formula(alpha=0.25, beta=1.0, learnable=True)
def mpelu(x, alpha, beta):
    """The multiple parametric ELU: x above 0, α·(e^(βx) - 1) below.

    Source: Li et al. 2016, Multiple Parametric Exponential Linear Units.
    """
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: alpha * expm1(beta * x))


@formula(
    alpha_p=math.log(math.expm1(0.8)),
    alpha_n=math.log(math.expm1(0.3)),
    beta=0.5,
    eps=-1e-6,
    learnable=("alpha_p", "alpha_n"),
)
def xielu(x, alpha_p, alpha_n, beta, eps):
    """s(α_p)·x² + βx above 0, (β + s(α_n))·(e^min(x, ε) - 1 - x) + βx below, s the softplus.

    By ε it is off 0 by 8e-7 at 0.

    Used by: Apertus.

    Source: Huang and Schlag 2024, Deriving Activation Functions Using Integration.
    """
    above, below = zm.softplus(alpha_p), zm.softplus(alpha_n)
    return piecewise(
        x,
        positive=lambda x: x * (above * x + beta),
        otherwise=lambda x: (beta + below) * expm1(zm.minimum(x, eps)) - below * x,
    )


@formula(beta=1.0, learnable=True)
def swish(x, beta):
    """SiLU with a learned sharpness, x·σ(βx).

    Source: Ramachandran et al. 2017, Searching for Activation Functions.
    """
    return x * zm.sigmoid(beta * x)


@formula(alpha=0.0, learnable=True)
def xsilu(x, alpha):
    """SiLU whose gate goes beyond 0 and 1, x·((1 + 2α)·σ(x) - α).

    Source: Huang 2024, Expanded Gating Ranges Improve Activation Functions.
    """
    return x * (zm.sigmoid(x) + alpha * zm.tanh(0.5 * x))


@formula(alpha=0.0, learnable=True)
def xgelu(x, alpha):
    """GELU whose gate goes beyond 0 and 1, x·((1 + 2α)·Φ(x) - α).

    Source: Huang 2024, Expanded Gating Ranges Improve Activation Functions.
    """
    z = _SQRT_HALF * x
    return x * (0.5 * erfc(-z) + alpha * erf(z))


@formula(alpha=0.0, learnable=True)
def xatlu(x, alpha):
    """A gate by the arctangent, x·((1 + 2α)·(atan(x)/π + ½) - α).

    Source: Huang 2024, Expanded Gating Ranges Improve Activation Functions.
    """

    def below(x):  # where atan(x) + π/2 = -atan(1/x), and far out -1/x
        c = zm.maximum(x, -(2.0**30))
        return (2 * alpha * x * zm.atan(x) - c * zm.atan(1 / c)) * (1 / math.pi)

    def above(x):
        return x * (0.5 + (1 + 2 * alpha) * (1 / math.pi) * zm.atan(x))

    return piecewise(x, (-0.75,), below, above)


@formula(p1=1.0, p2=0.0, beta=1.0, learnable=True)
def acon_c(x, p1, p2, beta):
    """A smooth maximum of p₁x and p₂x, (p₁ - p₂)·x·σ(β(p₁ - p₂)x) + p₂x.

    Used by: YOLOv5.

    Source: Ma et al. 2020, Activate or Not.
    """
    z = clip(beta * (p1 - p2) * x, -1000, 1000)  # where σ is 0 or 1, whatever p₁x is
    return x * (p1 * zm.sigmoid(z) + p2 * zm.sigmoid(-z))


@formula(alpha=0.25, mu=1e6, learnable=("mu",))
def smu(x, alpha, mu):
    """A smooth maximum of x and αx, ((1 + α)·x + (1 - α)·x·erf(μ(1 - α)x)) / 2.

    Source: Biswas et al. 2021, SMU: Smooth Maximum Unit.
    """
    z = zm.minimum(mu, 1e30) * ((1 - alpha) * x)  # μ is infinite in float16
    return x * (0.5 * erfc(-z) + alpha * (0.5 * erfc(z)))


@formula(alpha=0.25, mu=4.352665993287951e-9, learnable=("mu",))
def smu1(x, alpha, mu):
    """SMU by a square root, ((1 + α)·x + √((1 - α)²·x² + μ²)) / 2.

    Source: Biswas et al. 2021, SMU: Smooth Maximum Unit.
    """
    half = zm.maximum(abs(0.5 * mu), 1e-30)  # μ is 0 in float16, and 0/0 has no value
    return alpha * x + piecewise(
        0.5 * (1 - alpha) * x,
        positive=lambda x: x + hypot(x, half),
        otherwise=lambda x: half * (half / (hypot(x, half) - x)),
    )


@formula(alpha=1.0, beta=1.0, gamma=0.5, learnable=True)
def aptx(x, alpha, beta, gamma):
    """Alpha plus tanh times, (α + tanh(βx))·γx.

    Source: Kumar 2022, APTx.
    """
    return gamma * x * ((alpha - 1) + 2 * zm.sigmoid(2 * (beta * x)))


@formula(alpha=1.0, learnable=True)
def snake(x, alpha):
    """A line with a wave, x + sin²(αx) / α.

    Used by: Descript Audio Codec.

    Source: Ziyin et al. 2020, Neural Networks Fail to Learn Periodic Functions.
    """
    z = alpha * x
    return x * (1 + sin(z) * sinc(z * (1 / math.pi)))


@formula(alpha=1.0, beta=1.0, learnable=True)
def snakebeta(x, alpha, beta):
    """Snake with a size of its own, x + sin²(αx) / β.

    Used by: BigVGAN, Stable Audio, Qwen2.5-Omni's vocoder.

    Source: Lee et al. 2022, BigVGAN.
    """
    wave = sin(alpha * x)
    return x + wave * wave * (1 / beta)


@formula(a=1.0, b=1.0, learnable=True)
def sinlu(x, a, b):
    """SiLU with a sine, (x + a·sin(bx))·σ(x).

    Source: Paul et al. 2022, SinLU.
    """
    return (x + a * sin(b * x)) * zm.sigmoid(x)


@formula(a=1.0, b=1.0, learnable=True)
def coslu(x, a, b):
    """SiLU with a cosine, (x + a·cos(bx))·σ(x).

    Source: Pishchik 2023, Trainable Activations for Image Classification.
    """
    return (x + a * cos(b * x)) * zm.sigmoid(x)


@formula(n=1.0, a=1.0, learnable=("a",))
def laaf_tanh(x, n, a):
    """A tanh of learned slope, tanh(n·a·x); a larger n, with a = 1 / n, makes a learn faster.

    Used by: DeepXDE.

    Source: Jagtap et al. 2019, Locally Adaptive Activation Functions with Slope Recovery.
    """
    return zm.tanh(n * a * x)


@formula(beta=1.0, learnable=True)
def stan(x, beta):
    """The self-scalable tanh, tanh(x) + β·x·tanh(x).

    Used by: PhysicsNeMo.

    Source: Gnanasambandam et al. 2022, Self-scalable Tanh.
    """
    return zm.tanh(clip(x, -32, 32)) * (1 + beta * x)


@formula(alpha=1.0, lambda_=1.0, beta=0.0, learnable=True)
def tanhlu(x, alpha, lambda_, beta):
    """A tanh and a line, α·tanh(λx) + βx.

    Source: Shen et al. 2022, tanhLU.
    """
    return alpha * zm.tanh(lambda_ * x) + beta * x


@formula(alpha=0.5, gamma=1.0, beta=0.0, learnable=True)
def dyt(x, alpha, gamma, beta):
    """The dynamic tanh, γ·tanh(αx) + β, in place of a normalisation; γ and β are per channel.

    Source: Zhu et al. 2025, Transformers without Normalization.
    """
    return gamma * zm.tanh(alpha * x) + beta


@formula(alpha=0.5, s=0.0, gamma=1.0, beta=0.0, learnable=True)
def derf(x, alpha, s, gamma, beta):
    """The dynamic erf, γ·erf(αx + s) + β, in place of a normalisation; γ and β are per channel.

    Source: Chen et al. 2025, Stronger Normalization-Free Transformers.
    """
    return gamma * erf(alpha * x + s) + beta


@formula(
    numerator=(
        *(0.03355815733452378, 0.5050059186781659, 1.6534697310952233),
        *(2.0100501552600014, 0.9319195586484518, 0.15242646398275836),
    ),
    denominator=(
        *(4.812831860534153e-05, 3.9802479055059194),
        *(1.5837587665720168e-05, 0.30183382839661377),
    ),
    learnable=True,
)
def rational(x, numerator, denominator):
    """A safe Padé unit, P(x) / (1 + |x·Q(x)|), which starts near leaky ReLU on [-3, 3].

    The start is that of version B of the package rational_activations.

    Used by: KAT, in groups of channels; rational_activations.

    Source: Molina et al. 2019, Padé Activation Units.
    """
    growth = len(numerator) - 1 - len(denominator)
    is_odd = len(denominator) % 2

    def inner(x):
        return _polynomial(x, numerator) * (1 / (1 + abs(x * _polynomial(x, denominator))))

    def outer(x):  # by powers of 1 / x, which do not overflow; far out by the leading two alone
        t = 1 / clip(x, -(2.0**60), 2.0**60)
        size = abs(t) ** len(denominator) + abs(_polynomial(t, denominator[::-1]))
        leading = zm.sign(x) * x**growth if is_odd else x**growth
        return _polynomial(t, numerator[::-1]) * (1 / size) * leading

    return piecewise(x, (-1, 1), outer, inner, outer)


__all__ = [name for name, value in globals().items() if isinstance(value, Formula)]
