"""The maths of `zeta.math` as Triton functions on float32 blocks.

They mirror ``cpp/primitives.h``: the same reductions and polynomials, so that CPU and GPU err
alike. Triton's own exp is the hardware's approximation, whose error grows with |x|: it is not used.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: D103 — the names are those of zeta.math

import triton
import triton.language as tl


@triton.jit
def splat(value: tl.constexpr, like):
    return tl.full(like.shape, value, tl.float32)


@triton.jit
def total(x, by_column: tl.constexpr):
    """The sum of each column, or of all, as a block of one row."""
    columns = tl.sum(x, 0, keep_dims=True)
    # Not two returns: the compiler joins their types, and the shapes differ.
    if not by_column:
        columns = tl.sum(columns, 1, keep_dims=True)
    return columns


@triton.jit
def abs(x):
    return tl.abs(x)


@triton.jit
def with_sign(magnitude, sign):
    return tl.where(sign < 0, -magnitude, magnitude)


@triton.jit
def sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def unless_nan(value, x):
    """``value``, but NaN where x is."""
    return tl.where(x != x, x, value)


# Comparisons, not tl.minimum: a bound must keep NaN.
@triton.jit
def at_least(x, low):
    return tl.where(x < low, low, x)


@triton.jit
def at_most(x, high):
    return tl.where(x > high, high, x)


@triton.jit
def clip(x, low, high):
    return at_most(at_least(x, low), high)


@triton.jit
def finite(x):
    return clip(x, -3.4028234663852886e38, 3.4028234663852886e38)


@triton.jit
def minimum(x, y):
    return tl.where(y != y, y, at_most(x, y))


@triton.jit
def maximum(x, y):
    return tl.where(y != y, y, at_least(x, y))


# ---- Exponentials -------------------------------------------------------------------------------


@triton.jit
def power_of_two(n):
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def scale(significand, n):
    """significand·2^n, rounded once, also where the result is subnormal or infinite."""
    whole = n.to(tl.int32)
    half = whole >> 1
    return significand * power_of_two(half) * power_of_two(whole - half)


@triton.jit
def exponent(x):
    """n of e^x = 2^n·(1 + p)."""
    return tl.floor(x * 1.4426950408889634 + 0.5)


@triton.jit
def fraction(x, n):
    """p of e^x = 2^n·(1 + p)."""
    r = x - n * 0.693145751953125
    r = r - n * 1.428606765330187e-06
    q = r * 0.0013882521307095885 + 0.008366520516574383
    q = q * r + 0.04166720062494278
    q = q * r + 0.1666654348373413
    q = q * r + 0.4999999701976776
    return q * (r * r) + r


@triton.jit
def exp(x):
    x = clip(x, -104.0, 89.0)
    n = exponent(x)
    return scale(fraction(x, n) + 1.0, n)


@triton.jit
def expm1(x):
    x = clip(x, -104.0, 89.0)
    n = exponent(x)
    half = scale(splat(0.5, x), n)  # 2^n itself would overflow before the result does
    y = half * fraction(x, n) + (half - 0.5)
    return y + y


@triton.jit
def exp_decay(x):
    """e^-|x|"""
    return exp(-tl.abs(x))


@triton.jit
def expm1_decay(x):
    """e^-|x| - 1"""
    return expm1(-tl.abs(x))


# ---- The logistic function and the hyperbolic tangent --------------------------------------------


@triton.jit
def sigmoid(x):
    q = exp_decay(x)
    r = 1.0 / (q + 1.0)
    return tl.where(x > 0, r, q * r)


@triton.jit
def sigmoid_complement(x):
    return sigmoid(-x)


@triton.jit
def sigmoid_derivative(x):
    q = exp_decay(x)
    r = 1.0 / (q + 1.0)
    return q * r * r


@triton.jit
def tanh(x):
    m = expm1_decay(x)
    u = m * m + (m + m)  # e^-2|x| - 1, which does not cancel
    return with_sign(-u / (u + 2.0), x)


@triton.jit
def tanh_derivative(x):
    m = expm1_decay(x)
    sech = 2.0 * exp_decay(x) / (m * m + (m + m) + 2.0)
    return sech * sech


@triton.jit
def tanh_softplus(x):
    q = exp_decay(x)
    numerator = tl.where(x > 0, (q + q) + 1.0, q * q + (q + q))
    return numerator / (numerator + 2.0 * tl.where(x > 0, q * q, 1.0))


@triton.jit
def tanh_softplus_derivative(x):
    q = exp_decay(x)
    numerator = tl.where(x > 0, (q + q) + 1.0, q * q + (q + q))
    r = 2.0 / (numerator + 2.0 * tl.where(x > 0, q * q, 1.0))
    return (q * r) * (q + 1.0) * (r * tl.where(x > 0, q, 1.0))


# ---- The error function --------------------------------------------------------------------------


@triton.jit
def gauss(x):
    """e^(-x²), with what is lost in rounding x² put back."""
    a = at_most(tl.abs(x), 10.2)
    square = a * a
    lost = tl.fma(a, a, -square)
    y = exp(-square)
    return y - y * lost


@triton.jit
def erfc(x):
    a = at_most(tl.abs(x), 10.2)
    p = a * 0.03288597662202359 + 0.2296445077350157
    p = p * a + 0.7324966656327021
    p = p * a + 1.2392618993360802
    p = p * a + 1.0
    q = a * 0.0582881913573758 + 0.4070602858172196
    q = q * a + 1.3270347985267574
    q = q * a + 2.404084683404268
    q = q * a + 2.3676416557359388
    q = q * a + 1.0
    upper = gauss(x) * (p / q)
    return tl.where(x < 0, 2.0 - upper, upper)


@triton.jit
def erf(x):
    return tl.where(tl.abs(x) < 0.5, tl.erf(x), with_sign(1.0 - erfc(tl.abs(x)), x))


# ---- Logarithms ----------------------------------------------------------------------------------


@triton.jit
def log(x):
    tiny = x < 1.1754943508222875e-38
    scaled = tl.where(tiny, x * 8388608.0, x)
    # x = 2^e·(1 + f) with 1 + f in [√½, √2)
    bits = scaled.to(tl.int32, bitcast=True)
    e = (bits - 0x3F3504F3) >> 23
    f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    p = f * -0.07632271945476532 + 0.1276085525751114
    p = p * f - 0.1316063553094864
    p = p * f + 0.14201882481575012
    p = p * f - 0.16623327136039734
    p = p * f + 0.20001220703125
    p = p * f - 0.250008225440979
    p = p * f + 0.3333333134651184
    n = e.to(tl.float32) - tl.where(tiny, 23.0, 0.0)
    square = f * f
    y = p * f * square + n * 1.428606765330187e-06 - square * 0.5
    y = (y + f) + n * 0.693145751953125
    y = tl.where(x == 0.0, -float("inf"), y)
    y = tl.where(x == float("inf"), x, y)
    return tl.where(x >= 0.0, y, float("nan"))


@triton.jit
def log1p(x):
    u = x + 1.0
    lost = x - (u - 1.0)
    return log(u) + tl.where((x < 1e9) & (u > 0.0), lost / u, 0.0)


@triton.jit
def softplus(x):
    return at_least(x, 0.0) + log1p(exp_decay(x))


# ---- Others --------------------------------------------------------------------------------------


@triton.jit
def sin(x):
    return tl.sin(finite(x))


@triton.jit
def cos(x):
    return tl.cos(finite(x))


@triton.jit
def round(x):
    """The nearest integer, of two equally near the even one."""
    a = tl.abs(x)
    return tl.where(a < 8388608.0, with_sign((a + 8388608.0) - 8388608.0, x), x)


@triton.jit
def floor(x):
    return tl.floor(x)


@triton.jit
def remainder(x, y):
    r = x
    for _ in range(5):  # what is left of r/y, at most 2^128, is less by 2^-23 each time, and exact
        n = r / y
        r = tl.where(tl.abs(n) >= 8388608.0, tl.fma(-n, y, r), r)
    r = tl.where(tl.abs(x / y) == float("inf"), 0.0, r)  # of larger ones nothing is known
    r = tl.fma(-tl.floor(r / y), y, r)
    r = tl.where(r == 0, x * 0.0, tl.where((r < 0) != (y < 0), r + y, r))
    same = tl.where((x < 0) != (y < 0), y, x)
    r = tl.where((tl.abs(y) == float("inf")) & (tl.abs(x) < float("inf")), same, r)
    return tl.where(y == 0, float("nan"), r)


@triton.jit
def sqrt(x):
    return tl.sqrt(x)


@triton.jit
def rsqrt(x):
    return 1.0 / tl.sqrt(x)


@triton.jit
def legs(x, y):
    """u, √(u² + v²) and a power of two: x = u·power, y = v·power, the larger of u and v near 1."""
    a = tl.abs(x)
    b = tl.abs(y)
    exponent = tl.where(a < b, b, a).to(tl.int32, bitcast=True) >> 23
    exponent = tl.where(exponent < 1, 1, tl.where(exponent > 253, 253, exponent))
    inverse = ((254 - exponent) << 23).to(tl.float32, bitcast=True)
    u = x * inverse
    v = y * inverse
    return u, tl.sqrt(u * u + v * v), (exponent << 23).to(tl.float32, bitcast=True)


@triton.jit
def hypot(x, y):
    _, length, power = legs(x, y)
    return length * power


@triton.jit
def hypot_derivative(x, y):
    """x/√(x² + y²), and 0 where both are 0."""
    u, length, _ = legs(x, y)
    return tl.where(length == 0, 0.0, u / length)


@triton.jit
def asinh(x):
    """log(|x| + √(x² + 1)) as log1p(a·(1 + a/(1 + √(a² + 1)))), or as log(2a)."""
    a = tl.abs(x)
    s = tl.where(a < 268435456.0, a, 1.0)
    small = log1p(s * (s / (tl.sqrt(s * s + 1.0) + 1.0)) + s)
    return with_sign(tl.where(a < 268435456.0, small, log(a) + 0.6931471805599453), x)


@triton.jit
def logaddexp(x, y):
    difference = tl.where(x == y, 0.0, x - y)
    return maximum(x, y) + log1p(exp_decay(difference))


@triton.jit
def half_turn(x):
    """r of |x| = n + r, |r| <= 1/2, and (-1)^n."""
    a = tl.abs(x)
    shifted = a + 8388608.0
    r = tl.where(a < 8388608.0, a - (shifted - 8388608.0), 0.0)
    last = tl.where(a < 8388608.0, shifted, tl.where(a < 16777216.0, a, 0.0))  # its last bit is n's
    return r, tl.where((last.to(tl.int32, bitcast=True) & 1) == 1, -1.0, 1.0)


@triton.jit
def sinc(x):
    r, turned = half_turn(x)
    a = tl.abs(x)
    s = r * r
    p = s * 0.02472502551972866 - 0.1904473751783371
    p = p * s + 0.8117164373397827
    p = p * s - 1.6449333429336548
    return turned * tl.where(r == a, 1.0, r / a) * (p * s + 1.0)


@triton.jit
def sinc_derivative(x):
    r, turned = half_turn(x)
    s = r * r
    p = s * -0.02442070096731186 + 0.23495392501354218
    p = p * s - 1.3352161645889282
    p = p * s + 4.058709621429443
    p = p * s - 4.934802055358887
    far = (turned * (p * s + 1.0) - sinc(x)) / x
    p = s * -0.022359108552336693 + 0.208939790725708
    p = p * s - 1.1444889307022095
    p = p * s + 3.246968984603882
    p = p * s - 3.289868116378784
    return tl.where(r == tl.abs(x), x * p, far)


@triton.jit
def power_of_positive(x, y):
    """x^y for a finite x > 0: e^(y·log(x)), the exponent as a sum of two numbers."""
    tiny = x < 1.1754943508222875e-38
    bits = tl.where(tiny, x * 8388608.0, x).to(tl.int32, bitcast=True)
    # x = 2^e·(1 + f) with 1 + f in [√½, √2); with s = f/(2 + f), log(1 + f) is f - s·(f - series).
    e = (bits - 0x3F3504F3) >> 23
    f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    s = f / (f + 2.0)
    w = s * s
    series = w * ((w * 0.29579952359199524 + 0.3998878002166748) * w + 0.6666668653488159)
    n = e.to(tl.float32) - tl.where(tiny, 23.0, 0.0)
    whole = n * 0.693145751953125  # exact
    head = whole + f
    rest = n * 1.428606765330187e-06 - s * (f - series) + (f - (head - whole))
    high = head + rest
    low = rest - (high - head)
    bounded = clip(y, -18446744073709551616.0, 18446744073709551616.0)  # times 0 it is 0
    product = bounded * high
    lost = tl.fma(bounded, high, -product) + bounded * low
    within = clip(product, -104.0, 89.0)
    n = exponent(within)
    p = fraction(within, n)
    return scale(tl.where(tl.abs(product) < 104.0, (p + 1.0) * lost + p, p) + 1.0, n)


@triton.jit
def power(x, y):
    a = tl.abs(x)
    infinity = float("inf")
    whole = tl.floor(y) == y
    odd = whole & (tl.floor(y * 0.5) != y * 0.5)
    z = power_of_positive(a, y)
    z = tl.where(a == 0, tl.where(y > 0, 0.0, infinity), z)
    z = tl.where(a == infinity, tl.where(y > 0, infinity, 0.0), z)
    z = tl.where((x.to(tl.int32, bitcast=True) < 0) & odd, -z, z)  # -0 too
    z = tl.where((x < 0) & (a < infinity) & (whole == 0), float("nan"), z)
    z = unless_nan(unless_nan(z, x), y)
    return tl.where((y == 0) | (x == 1), 1.0, z)


@triton.jit
def power_log(x, y):
    # The logarithm of 0 would meet a vanishing power.
    y_log = power(x, y) * log(x)
    return tl.where((x == 0) & (y >= 0), 0.0, y_log)


@triton.jit
def atan(x):
    a = tl.abs(x)
    t = tl.where(a > 1, 1.0 / a, a)
    s = t * t
    p = s * -0.0017936202930286527 + 0.010914599522948265
    p = p * s - 0.031177833676338196
    p = p * s + 0.05795758217573166
    p = p * s - 0.0840344950556755
    p = p * s + 0.10952185839414597
    p = p * s - 0.14264242351055145
    p = p * s + 0.19998548924922943
    p = p * s - 0.33333298563957214
    p = p * s * t + t
    return with_sign(tl.where(a > 1, 1.5707963705062866 - p, p), x)
