"""Gain matching: c·g + b closest to f by least squares, over what is seen of f and g."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Where no inputs are given: midpoints of as many equally likely parts of N(0, 1).
NORMAL_POINTS = 4096


class GainSums:
    """Sums over what an old activation f and a new one g answer, by channel, in double precision.

    A single dimension is a sample of one channel.

    Args:
        channel_dim: the dimension that holds the channels.
    """

    def __init__(self, channel_dim: int = -1) -> None:
        self.channel_dim = channel_dim
        self.count = 0
        self.f = self.g = self.fg = self.gg = np.zeros(())

    def add(self, f: ArrayLike, g: ArrayLike) -> None:
        """Take in a pair of outputs."""
        f, g = self._by_channel(f), self._by_channel(g)
        self.count += len(f)
        self.f = self.f + f.sum(0)
        self.g = self.g + g.sum(0)
        self.fg = self.fg + (f * g).sum(0)
        self.gg = self.gg + (g * g).sum(0)

    def solve(self) -> tuple[float, NDArray[np.float64]] | None:
        """The gain c and the shifts b; None where g is constant, or nothing was seen."""
        if not self.count:
            return None
        covariance = (self.fg - self.f * self.g / self.count).sum()
        variance = (self.gg - self.g * self.g / self.count).sum()
        if not variance > 0:
            return None
        gain = covariance / variance
        return float(gain), (self.f - gain * self.g) / self.count

    def _by_channel(self, y: ArrayLike) -> NDArray[np.float64]:
        y = np.asarray(y, np.float64)
        return (
            y
            if y.ndim < 2
            else np.moveaxis(y, self.channel_dim, -1).reshape(-1, y.shape[self.channel_dim])
        )


def normal_quantiles() -> NDArray[np.float64]:
    """Inputs that stand for x ~ N(0, 1)."""
    from scipy.special import ndtri

    x: NDArray[np.float64] = ndtri((np.arange(NORMAL_POINTS) + 0.5) / NORMAL_POINTS)
    return x
