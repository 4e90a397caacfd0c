"""Gain matching: c·g + b closest to f by least squares, over what is seen of f and g."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]

# Where no inputs are given: midpoints of as many equally likely parts of N(0, 1).
NORMAL_POINTS = 4096
NORMAL_QUANTILES: Array = ndtri((np.arange(NORMAL_POINTS) + 0.5) / NORMAL_POINTS)


@dataclass(frozen=True)
class Match:
    """What brings c·g + b closest to f.

    Attributes:
        gain: c.
        shift: b: one value per channel, or one for all.
        channel_dim: the dimension of the channels; None with one shift for all.
    """

    gain: float
    shift: Array
    channel_dim: int | None = None


class GainSums:
    """Sums over what an old activation f and a new one g answer, in double precision.

    Attributes:
        count: how many outputs were seen.
    """

    def __init__(self) -> None:
        self.count = 0
        self._pooled = _Moments()
        self._by_channel = _Moments()
        self._layouts: set[tuple[int, int] | None] = set()

    def add(self, f: ArrayLike, g: ArrayLike, channel_dim: int | None = None) -> None:
        """Take in a pair of outputs; without a ``channel_dim`` all are of one channel."""
        f, g = np.asarray(f, np.float64), np.asarray(g, np.float64)
        self.count += f.size
        self._pooled.add(f.reshape(-1), g.reshape(-1))
        if channel_dim is None or f.ndim < 2:
            self._layouts.add(None)
            return
        channels = f.shape[channel_dim]
        self._layouts.add((channel_dim, channels))
        if len(self._layouts) == 1:
            channels_last = (np.moveaxis(y, channel_dim, -1).reshape(-1, channels) for y in (f, g))
            self._by_channel.add(*channels_last)

    def solve(self) -> Match | None:
        """The match, with one shift for all where the channels are not always the same ones.

        None where the outputs do not tell: g is constant, the best gain is 0, which would stop the
        gradient, or something is not finite.
        """
        if len(self._layouts) == 1 and (layout := next(iter(self._layouts))):
            return self._by_channel.solve(layout[0])
        return self._pooled.solve(None)


class _Moments:
    """Sums over the first dimension."""

    def __init__(self) -> None:
        self.n = 0
        self.f = self.g = self.fg = self.gg = np.zeros(())

    def add(self, f: Array, g: Array) -> None:
        with np.errstate(all="ignore"):
            self.n += len(f)
            self.f = self.f + f.sum(0)
            self.g = self.g + g.sum(0)
            self.fg = self.fg + (f * g).sum(0)
            self.gg = self.gg + (g * g).sum(0)

    def solve(self, channel_dim: int | None) -> Match | None:
        if not self.n:
            return None
        with np.errstate(all="ignore"):
            covariance = (self.fg - self.f * self.g / self.n).sum()
            variance = (self.gg - self.g * self.g / self.n).sum()
            gain = covariance / variance
        if not (variance > 0 and np.isfinite(gain) and gain):
            return None
        return Match(float(gain), (self.f - gain * self.g) / self.n, channel_dim)


def on_normal(name: str, activation: Callable[[Any], Any], x: Any) -> Any:
    """What an activation answers on the quantiles.

    Raises:
        ValueError: it does not take a single dimension, since it has parameters per channel, say.
    """
    try:
        return activation(x)
    except Exception as error:  # of whatever type the framework chooses
        raise ValueError(
            f"{name or 'the model itself'} cannot be matched without inputs: {type(error).__name__}"
            f" on a single dimension; give example_inputs"
        ) from error
