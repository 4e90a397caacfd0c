"""Minimax fits in float32 for what a framework lacks, by rising powers."""

from typing import Any

# e^(a²)·erfc(a) on [0, 10.2], where float32 has underflowed; also in runtime/cpp/primitives.h.
ERFC_NUMERATOR = (1.0, 1.2392618993360802, 0.7324966656327021, 0.2296445077350157,
                  0.03288597662202359)  # fmt: skip
ERFC_DENOMINATOR = (1.0, 2.3676416557359388, 2.404084683404268, 1.3270347985267574,
                    0.4070602858172196, 0.0582881913573758)  # fmt: skip
# atanh(s)/s on [-1/3, 1/3], of s²; log(1 + x) is 2·atanh(x/(2 + x)).
ATANH = (1.0, 0.3333316147327423, 0.20012298226356506, 0.13982579112052917, 0.14078889787197113)


def polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    """Horner's rule on any framework's arrays."""
    y = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        y = (y + coefficient) * x
    return y + coefficients[0]
