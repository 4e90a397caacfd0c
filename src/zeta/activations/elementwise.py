"""Activations of constants that are not trained."""

import math

from zeta import math as zm
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


@formula(mu=0.707107, sigma=0.282095)
def laplace(x, mu, sigma):
    """The normal distribution function of mean mu and standard deviation sigma.

    An approximation of squared ReLU with a bounded range.

    Used by: MEGA, in its attention.
    Source: Ma et al. 2022, Mega: Moving Average Equipped Gated Attention.
    """
    z = (x - mu) * (_SQRT_HALF / sigma)
    return 0.5 * erfc(-z)


@formula
def relu(x):
    """The positive part of x. Used by: AlexNet, ResNet, T5. Source: Nair and Hinton 2010."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: 0)


@formula(negative_slope=0.01)
def leaky_relu(x, negative_slope):
    """ReLU with a small slope below 0. Used by: YOLOv3, DCGAN. Source: Maas et al. 2013."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: negative_slope * x)


@formula(alpha=1.0)
def elu(x, alpha):
    """The exponential linear unit: x, and alpha·(e^x - 1) below 0. Source: Clevert et al. 2016."""
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: alpha * expm1(x))


@formula(alpha=SELU_ALPHA, scale=SELU_SCALE)
def selu(x, alpha, scale):
    """The self-normalising exponential linear unit. Source: Klambauer et al. 2017."""
    return scale * piecewise(x, positive=lambda x: x, otherwise=lambda x: alpha * expm1(x))


@formula
def gelu(x):
    """x times the standard normal distribution function.

    Used by: BERT, ViT.
    Source: Hendrycks and Gimpel 2016, Gaussian Error Linear Units.
    """
    return x * (0.5 * erfc(-_SQRT_HALF * x))


@formula
def gelu_tanh(x):
    """GELU's tanh approximation, 0.5·x·(1 + tanh u) written as x·sigmoid(2u).

    u = √(2/π)·(x + 0.044715·x³).

    Used by: GPT-2.
    Source: Hendrycks and Gimpel 2016, Gaussian Error Linear Units.
    """
    c = clip(x, -32, 32)  # where the gate is 0 or 1 even in float64
    k = 2 * math.sqrt(2 / math.pi)
    return x * zm.sigmoid(c * (k + 0.044715 * k * (c * c)))


@formula
def silu(x):
    """x times its own sigmoid. Used by: EfficientNet, YOLOv5. Source: Elfwing et al. 2017."""
    return x * zm.sigmoid(x)


@formula
def mish(x):
    """A smooth gate like SiLU's, x·tanh(softplus(x)). Used by: YOLOv4. Source: Misra 2019."""
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
    """SiLU with a piecewise linear gate. Used by: MobileNetV3. Source: Howard et al. 2019."""
    return x * ((clip(x, -3, 3) + 3) / 6)


@formula
def squared_relu(x):
    """The square of ReLU. Used by: Primer, Nemotron. Source: So et al. 2021, Primer."""
    return piecewise(x, positive=lambda x: x * x, otherwise=lambda x: 0)


# ---- Piecewise polynomials --------------------------------------------------------------------


@formula
def relu6(x):
    """ReLU bounded above, min(max(x, 0), 6).

    Used by: MobileNet, MobileNetV2.
    Source: Howard et al. 2017, MobileNets.
    """
    return clip(x, 0, 6)


@formula
def hardsigmoid(x):
    """A piecewise linear sigmoid, clip(x/6 + 1/2, 0, 1).

    Used by: MobileNetV3, in its gates.
    Source: Howard et al. 2019, Searching for MobileNetV3.
    """
    return (clip(x, -3, 3) + 3) / 6


@formula(min_val=-1.0, max_val=1.0)
def hardtanh(x, min_val, max_val):
    """x kept within two bounds, min(max(x, min_val), max_val).

    Source: Collobert 2004, Large Scale Machine Learning.
    """
    return clip(x, min_val, max_val)


@formula(lambda_=0.5)
def softshrink(x, lambda_):
    """x moved towards 0 by lambda, sign(x)·max(|x| - lambda, 0).

    Source: Donoho 1995, De-noising by Soft-Thresholding.
    """
    shrunk = piecewise(abs(x), (lambda_,), lambda a: 0, lambda a: a - lambda_)
    return zm.sign(x) * shrunk


@formula(lambda_=0.5)
def hardshrink(x, lambda_):
    """x where |x| > lambda, else 0.

    Source: Donoho and Johnstone 1994, Ideal Spatial Adaptation by Wavelet Shrinkage.
    """
    return x * piecewise(abs(x), (lambda_,), lambda a: 0, lambda a: 1)


@formula(threshold=1.0, default_value=0.0)
def threshold(x, threshold, default_value):
    """x above the threshold, else another value.

    Source: Konda et al. 2014, Zero-bias Autoencoders.
    """
    return piecewise(x, (threshold,), lambda x: default_value, lambda x: x)


@formula(threshold=0.01)
def fatrelu(x, threshold):
    """ReLU of a positive threshold, x where x > threshold, else 0, for sparser activations.

    Used by: MiniCPM-S, ProSparse's Llama 2.
    Source: Kurtz et al. 2020, Inducing and Exploiting Activation Sparsity.
    """
    return piecewise(x, (threshold,), lambda x: 0, lambda x: x)


@formula
def sparse_plus(x):
    """A softplus that is exactly 0 and x far out: 0; (x + 1)²/4 within ±1; x.

    Source: Blondel et al. 2019, Learning with Fenchel-Young Losses.
    """
    return piecewise(x, (-1, 1), lambda x: 0, lambda x: 0.25 * ((x + 1) * (x + 1)), lambda x: x)


@formula
def sparse_sigmoid(x):
    """A sigmoid that is exactly 0 and 1 far out, clip((x + 1)/2, 0, 1); sparse_plus's slope.

    Source: Martins and Astudillo 2016, From Softmax to Sparsemax.
    """
    return 0.5 * (clip(x, -1, 1) + 1)


@formula(beta=2.0)
def smelu(x, beta):
    """A ReLU with a quadratic bend: 0; (x + beta)²/(4·beta) within ±beta; x.

    Source: Shamir et al. 2020, Smooth Activations and Reproducibility in Deep Networks.
    """
    bend = lambda x: (0.25 / beta) * ((x + beta) * (x + beta))
    return piecewise(x, (-beta, beta), lambda x: 0, bend, lambda x: x)


@formula
def sqnl(x):
    """A tanh of parabolas, c - c·|c|/4 of c = clip(x, -2, 2).

    Source: Wuraola and Patel 2018, SQNL: A New Computationally Efficient Activation Function.
    """
    c = clip(x, -2, 2)
    return c * (1 - 0.25 * abs(c))


@formula(alpha=0.1, c=1.0)
def plu(x, alpha, c):
    """A piecewise linear tanh of slope 1 within ±c, alpha beyond.

    Source: Nicolae 2018, PLU: The Piecewise Linear Unit Activation Function.
    """
    inner = clip(x, -c, c)
    return inner + alpha * (x - inner)


@formula
def hard_mish(x):
    """Mish with a piecewise linear gate, x·clip(x + 2, 0, 2)/2.

    Source: Misra 2020, H-Mish; timm has it.
    """
    return x * (0.5 * (clip(x, -2, 0) + 2))


@formula
def modulus(x):
    """The absolute value of x.

    Source: Vallés-Pérez et al. 2023, Empirical Study of the Modulus as Activation Function.
    """
    return abs(x)


@formula
def soft_modulus_q(x):
    """A modulus without its kink: x²·(2 - |x|) within ±1, |x| beyond.

    Source: Vallés-Pérez et al. 2023, Empirical Study of the Modulus as Activation Function.
    """
    return piecewise(abs(x), (1,), lambda a: a * a * (2 - a), lambda a: a)


@formula
def cube(x):
    """x³, which multiplies three features with each other.

    Used by: Stanford's neural dependency parser.
    Source: Chen and Manning 2014, A Fast and Accurate Dependency Parser.
    """
    return x * (x * x)


# ---- Linear units -----------------------------------------------------------------------------


@formula(alpha=1.0)
def celu(x, alpha):
    """An ELU of slope 1 at 0 for every alpha: x, and alpha·(e^(x/alpha) - 1) below 0.

    Source: Barron 2017, Continuously Differentiable Exponential Linear Units.
    """
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: alpha * expm1(x * (1 / alpha)))


@formula(b=4.0)
def squareplus(x, b):
    """An algebraic softplus, (x + √(x² + b))/2.

    Written as max(x, 0) + b/(2·(|x| + √(x² + b))), which does not cancel.
    Source: Barron 2021, Squareplus: A Softplus-Like Algebraic Rectifier.
    """
    tail = lambda a: 0.25 * b / (0.5 * zm.hypot(a, zm.sqrt(b)) + 0.5 * a)
    return piecewise(x, positive=lambda x: x + tail(x), otherwise=lambda x: tail(-x))


@formula(alpha=1.0)
def isru(x, alpha):
    """The inverse square root unit, x/√(1 + alpha·x²).

    Beyond ±1 it is written in 1/x, in which neither it nor its slope cancels.
    Source: Carlile et al. 2017, Improving Deep Learning by Inverse Square Root Linear Units.
    """
    root = zm.sqrt(alpha)
    return piecewise(
        x,
        (-1, 1),
        lambda x: -1 / zm.hypot(1 / x, root),
        lambda x: x / zm.hypot(1, root * x),
        lambda x: 1 / zm.hypot(1 / x, root),
    )


@formula(alpha=1.0)
def isrlu(x, alpha):
    """The inverse square root linear unit: x, and x/√(1 + alpha·x²) below 0.

    Source: Carlile et al. 2017, Improving Deep Learning by Inverse Square Root Linear Units.
    """
    return piecewise(x, positive=lambda x: x, otherwise=lambda x: isru(x, alpha))


@formula
def bent_identity(x):
    """(√(x² + 1) - 1)/2 + x, of slope 1/2 far below 0 and 3/2 far above.

    Source: Misra 2019, the package Echo; Kunc and Kléma 2024, Three Decades of Activations.
    """
    root = lambda x: zm.hypot(x, 1)
    return piecewise(
        x,
        (-1, 1),
        lambda x: 0.5 * x - 0.5 + 0.5 / (root(x) - x),
        lambda x: x + 0.5 * (x * x / (1 + root(x))),
        lambda x: x + 0.5 * (root(x) - 1),
    )


@formula(beta=1.0)
def nlrelu(x, beta):
    """A ReLU that grows as a logarithm, log(1 + beta·max(x, 0)).

    Source: Liu et al. 2019, Natural-Logarithm-Rectified Activation Function.
    """
    return piecewise(x, positive=lambda x: zm.log1p(beta * x), otherwise=lambda x: 0)


# ---- Sigmoids ---------------------------------------------------------------------------------


@formula
def softsign(x):
    """x/(1 + |x|), written beyond ±1 as a distance from its limit, whose slope does not cancel.

    Source: Bergstra et al. 2009, Quadratic Polynomials Learn Better Image Features.
    """
    return piecewise(
        x,
        (-1, 1),
        lambda x: 1 / (1 - x) - 1,
        lambda x: x / (1 + abs(x)),
        lambda x: 1 - 1 / (1 + x),
    )


@formula
def elliott(x):
    """A sigmoid without exponentials, (1 + x/(1 + |x|))/2.

    Source: Elliott 1993, A Better Activation Function for Artificial Neural Networks.
    """
    return piecewise(x, positive=lambda x: 1 - 0.5 / (1 + x), otherwise=lambda x: 0.5 / (1 - x))


@formula
def arctan(x):
    """The inverse tangent.

    Source: Kunc and Kléma 2024, Three Decades of Activations.
    """
    return zm.atan(x)


@formula(alpha=1.7159, beta=2 / 3)
def lecun_tanh(x, alpha, beta):
    """A tanh with a gain of about 1 on normalised inputs, alpha·tanh(beta·x).

    Used by: LeNet-5.
    Source: LeCun et al. 1998, Efficient BackProp.
    """
    return alpha * zm.tanh(beta * x)


@formula(a=0.25)
def penalized_tanh(x, a):
    """tanh with a smaller slope on its negative side: tanh(x), and a·tanh(x) below 0.

    Source: Xu et al. 2016, Revise Saturated Activation Functions.
    """
    return piecewise(x, positive=zm.tanh, otherwise=lambda x: a * zm.tanh(x))


@formula
def logsigmoid(x):
    """The logarithm of the sigmoid, -log(1 + e^-x).

    Source: PyTorch 2016, `torch.nn.LogSigmoid`.
    """
    return -zm.softplus(-x)


@formula
def tanhshrink(x):
    """x - tanh(x), within ±1 by tanh's continued fraction, which does not cancel.

    Source: PyTorch 2016, `torch.nn.Tanhshrink`.
    """
    outer = lambda x: x - zm.tanh(x)
    return piecewise(x, (-1, 1), outer, _tanhshrink_inner, outer)


def _tanhshrink_inner(x):
    """x - x/(1 + q/(3 + q/(5 + …))) of q = x², every term positive; to float64's digits."""
    q = x * x
    fraction = 19
    for odd in range(17, 1, -2):
        fraction = odd + q / fraction
    return x * (q / (fraction + q))


# ---- Exponentials and softplus ----------------------------------------------------------------


@formula
def exponential(x):
    """e^x.

    Source: Chollet et al. 2015, Keras.
    """
    return zm.exp(x)


@formula
def gaussian(x):
    """The bell curve e^(-x²/2).

    Used by: coordinate networks (implicit neural representations).
    Source: Ramasinghe and Lucey 2022, Beyond Periodicity.
    """
    return zm.exp(-0.5 * (x * x))


@formula
def shifted_softplus(x):
    """A softplus through the origin, log((1 + e^x)/2).

    Used by: SchNet.
    Source: Schütt et al. 2017, SchNet: A Continuous-Filter Convolutional Neural Network.
    """
    return piecewise(
        x,
        positive=lambda x: x + zm.log1p(0.5 * expm1(-x)),
        otherwise=lambda x: zm.log1p(0.5 * expm1(x)),
    )


@formula
def sqrtsoftplus(x):
    """√(log(1 + e^x)); far below 0, where that is e^(x/2), without the softplus's underflow.

    Used by: DeepSeek V4, as its router's score.
    Source: DeepSeek-AI 2026, DeepSeek-V4; Hugging Face's Transformers has it.
    """
    return piecewise(x, (-40,), lambda x: zm.exp(0.5 * x), lambda x: zm.sqrt(zm.softplus(x)))


# ---- Self-gated -------------------------------------------------------------------------------


@formula
def quick_gelu(x):
    """GELU's sigmoid approximation, x·σ(1.702·x).

    Used by: CLIP.
    Source: Hendrycks and Gimpel 2016, Gaussian Error Linear Units.
    """
    return x * zm.sigmoid(1.702 * x)


@formula
def gelu_10(x):
    """GELU bounded for quantisation, clip(gelu(x), -10, 10).

    Source: Wu et al. 2020, Integer Quantization for Deep Learning Inference.
    """
    return clip(gelu(x), -10, 10)


@formula
def gelu_sine(x):
    """GELU with a small ripple, gelu(x) + 0.1·sin(x).

    Source: Vitvitskyi et al. 2026, Mining Generalizable Activation Functions.
    """
    return gelu(x) + 0.1 * sin(x)


@formula(beta=1.75)
def e_swish(x, beta):
    """A steeper SiLU, beta·x·σ(x).

    Source: Alcaide 2018, E-swish: Adjusting Activations to Different Network Depths.
    """
    gate = zm.sigmoid(clip(x, -1e4, 1e4))  # beta·x may overflow where its slope is 0
    return beta * (zm.maximum(x, -1e4) * gate)


@formula
def dsilu(x):
    """SiLU's derivative as a steeper, overshooting sigmoid, σ(x)·(1 + x·(1 - σ(x))).

    Source: Elfwing et al. 2017, Sigmoid-Weighted Linear Units.
    """
    return zm.sigmoid(x) * (1 + x * zm.sigmoid(-x))


@formula(alpha=1.67)
def bsilu(x, alpha):
    """A SiLU through the origin that is bounded by -alpha/2, (x + alpha)·σ(x) - alpha/2.

    Written as x·σ(x) + alpha/2·tanh(x/2), which does not cancel.
    Source: Horuz et al. 2025, The Resurrection of the ReLU.
    """
    return x * zm.sigmoid(x) + 0.5 * alpha * zm.tanh(0.5 * x)


@formula(t=-0.2)
def flatten_t_swish(x, t):
    """SiLU's positive side above a floor: x·σ(x) + t, and t below 0.

    Source: Chieng et al. 2018, Flatten-T Swish.
    """
    return piecewise(x, positive=lambda x: x * zm.sigmoid(x), otherwise=lambda x: 0) + t


@formula
def elish(x):
    """A SiLU above 0, an ELU times a sigmoid below: x·σ(x), and (e^x - 1)·σ(x).

    Source: Basirat and Roth 2018, The Quest for the Golden Activation Function.
    """
    return zm.sigmoid(x) * piecewise(x, positive=lambda x: x, otherwise=expm1)


@formula
def hard_elish(x):
    """ELiSH with a piecewise linear sigmoid, clip((x + 1)/2, 0, 1).

    Source: Basirat and Roth 2018, The Quest for the Golden Activation Function.
    """
    return sparse_sigmoid(x) * piecewise(x, positive=lambda x: x, otherwise=expm1)


@formula
def lisht(x):
    """The linearly scaled tanh, x·tanh(x), an even function.

    Source: Roy et al. 2019, LiSHT.
    """
    return x * zm.tanh(clip(x, -1e4, 1e4))


@formula
def telu(x):
    """x·tanh(e^x), also published as TanhExp (Liu and Di 2020).

    Source: Fernandez and Mali 2024, TeLU Activation Function for Fast and Stable Deep Learning.
    """
    near = lambda x: zm.minimum(x, 4)  # beyond, tanh is 1
    return piecewise(
        x,
        positive=lambda x: x - near(x) * (2 * zm.sigmoid(-2 * zm.exp(near(x)))),
        otherwise=lambda x: x * zm.tanh(zm.exp(x)),
    )


@formula
def serf(x):
    """A smooth gate like Mish's, x·erf(log(1 + e^x)).

    Source: Nag et al. 2021, Serf.
    """
    gate = zm.erf(zm.softplus(clip(x, -1e4, 1e4)))  # 2/√π·x may overflow where its slope is 0
    return zm.maximum(x, -1e4) * gate


@formula
def logish(x):
    """x·log(1 + σ(x)), of slope log 2 far above 0.

    Source: Zhu et al. 2021, Logish.
    """
    return x * zm.log1p(zm.sigmoid(x))


@formula
def smish(x):
    """x·tanh(log(1 + σ(x))), of slope 3/5 far above 0.

    Source: Wang et al. 2022, Smish.
    """
    return x * zm.tanh(zm.log1p(zm.sigmoid(x)))


@formula
def phish(x):
    """x·tanh(gelu(x)).

    Source: Naveen 2022, Phish: A Novel Hyper-Optimizable Activation Function.
    """
    c = zm.maximum(x, -1e4)  # where it is 0: a slope of the largest number's would be inf·0
    return c * zm.tanh(gelu(c))


@formula(beta=-0.25)
def mila(x, beta):
    """Mish with a moved gate, x·tanh(log(1 + e^(x + beta))).

    Source: Misra 2019, Mila; the package Echo has it.
    """
    return x * zm.tanh(zm.softplus(x + beta))


@formula
def atlu(x):
    """The arctan linear unit, x·(arctan(x)/π + 1/2); below -1 by the arctangent of -1/x.

    Source: Huang 2024, Expanded Gating Ranges Improve Activation Functions.
    """
    far = lambda x: zm.maximum(x, -1e30)  # beyond, it is -1/π; 1/x may be taken for 0
    return piecewise(
        x,
        (-1,),
        lambda x: (1 / math.pi) * (far(x) * zm.atan(-1 / far(x))),
        lambda x: x * (zm.atan(x) * (1 / math.pi) + 0.5),
    )


@formula
def colu(x):
    """The collapsing linear unit, x/(1 - x·e^-(x + e^x)).

    Source: Vagerwal 2021, Deeper Learning with CoLU Activation.
    """
    decay = lambda x: zm.exp(x + zm.exp(x))
    near = lambda x: zm.minimum(x, 4)  # beyond, the denominator is 1
    return piecewise(
        x,
        positive=lambda x: x / (1 - near(x) / decay(near(x))),
        otherwise=lambda x: x * decay(x) / (decay(x) - x),
    )


@formula(m=3.0)
def powlu(x, m):
    """SiLU's square of linear growth: x^(1 + m/(√x + 1))·σ(x), and x²·σ(x) below 0.

    Its gate, by which a value is multiplied in place of the first x, is x^(m/(√x + 1))·σ(x).
    Source: Jiang et al. 2026, PowLU: An Activation Function for Stable Pre-Training of LLMs.
    """
    near = lambda x: clip(x, 1e-36, 1e37)  # beyond, the power is 0 and 1
    power = lambda x: x ** (m / (zm.sqrt(x) + 1))
    half = lambda x: x * zm.exp(0.5 * x)  # no underflow before the square's
    return piecewise(
        x,
        positive=lambda x: x * (zm.sigmoid(x) * power(near(x))),
        otherwise=lambda x: half(x) * half(x) * zm.sigmoid(-x),
    )


# ---- Oscillating ------------------------------------------------------------------------------


@formula(omega=30.0)
def sine(x, omega):
    """A sine of high frequency, sin(omega·x).

    Used by: SIREN.
    Source: Sitzmann et al. 2020, Implicit Neural Representations with Periodic Activations.
    """
    return sin(omega * x)


@formula
def gcu(x):
    """The growing cosine unit, x·cos(x).

    Source: Noel et al. 2021, Growing Cosine Unit.
    """
    return x * zm.cos(x)


# ---- Steps with another function's derivative -------------------------------------------------
#
# A spike is fired strictly above 0.


@formula(slope=25.0)
def spike_sigmoid(x, slope):
    """A step from 0 to 1 at 0, with the derivative of σ(slope·x).

    Used by: snnTorch's spiking neurons.
    Source: Zenke and Ganguli 2018, SuperSpike.
    """
    return zm.with_gradient(_step(x), zm.sigmoid(slope * x))


@formula(slope=25.0)
def spike_fast_sigmoid(x, slope):
    """A step from 0 to 1 at 0, with the derivative of x/(1 + slope·|x|).

    Used by: snnTorch's spiking neurons.
    Source: Zenke and Ganguli 2018, SuperSpike.
    """
    return zm.with_gradient(_step(x), softsign(slope * x) * (1 / slope))


@formula(alpha=2.0)
def spike_atan(x, alpha):
    """A step from 0 to 1 at 0, with the derivative of arctan(π/2·alpha·x)/π.

    Used by: snnTorch, SpikingJelly.
    Source: Fang et al. 2021, Incorporating Learnable Membrane Time Constants.
    """
    return zm.with_gradient(_step(x), zm.atan(math.pi / 2 * alpha * x) * (1 / math.pi))


@formula(alpha=1.0)
def spike_triangle(x, alpha):
    """A step from 0 to 1 at 0, with the derivative alpha·max(1 - |alpha·x|, 0).

    Used by: SpikingJelly's spiking neurons.
    Source: Esser et al. 2016, Convolutional Networks for Fast, Energy-Efficient Computing.
    """
    c = clip(alpha * x, -1, 1)
    return zm.with_gradient(_step(x), c * (1 - 0.5 * abs(c)))


@formula
def sign_ste(x):
    """1 from 0 on, else -1, straight through within ±1: the derivative of clip(x, -1, 1).

    Used by: binarised networks.
    Source: Courbariaux et al. 2016, Binarized Neural Networks.
    """
    return zm.with_gradient(_binary(x), clip(x, -1, 1))


@formula
def approx_sign(x):
    """1 from 0 on, else -1, with the derivative max(2 - 2·|x|, 0).

    Used by: Bi-Real Net.
    Source: Liu et al. 2018, Bi-Real Net.
    """
    c = clip(x, -1, 1)
    return zm.with_gradient(_binary(x), c * (2 - abs(c)))


@formula
def sugar_bsilu(x):
    """ReLU, with the derivative of bsilu, which revives units that are off.

    Source: Horuz et al. 2025, The Resurrection of the ReLU.
    """
    return zm.with_gradient(relu(x), bsilu(x))


def _step(x):
    return piecewise(x, positive=lambda x: 1, otherwise=lambda x: 0)


def _binary(x):
    return piecewise(-x, positive=lambda x: -1, otherwise=lambda x: 1)


__all__ = [
    *("SELU_ALPHA", "SELU_SCALE"),
    *(name for name, value in globals().items() if isinstance(value, Formula)),
]
