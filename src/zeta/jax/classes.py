"""The classes of a softmax head, whole or split along an axis of ``jax.shard_map``.

Shape suffixes: C tokens, K mixtures, V classes, T targets of a token.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.nn import logsumexp


@dataclass(frozen=True)
class Classes:
    """The classes, whole or as the part of them that this device holds.

    Attributes:
        count: of all classes, on all devices.
        here: how many of them are on this device.
        axis_name: the axis of ``jax.shard_map`` that they are split along; None: not split.
    """

    count: int
    here: int
    axis_name: str | None

    @classmethod
    def of(cls, function: str, weight: Array, axis_name: str | None) -> "Classes":
        """Those of a decoder's weight.

        Raises:
            ValueError: the weight is not split along this axis.
        """
        here = weight.shape[-2]
        if axis_name is None:
            return cls(here, here, None)
        if axis_name not in jax.typeof(weight).manual_axis_type.varying:
            raise ValueError(
                f"{function}: weight is not split along {axis_name!r}; call it inside "
                "jax.shard_map with check_vma=True, the default, and a weight whose in_specs name "
                "this axis"
            )
        return cls(here * lax.axis_size(axis_name), here, axis_name)

    def log_sum_exp(self, logits: Array) -> Array:
        """The logarithm of the sum of the exponentials over all classes."""
        here = _log_sum_exp(logits)
        if self.axis_name is None:
            return here
        largest = lax.pmax(lax.stop_gradient(here), self.axis_name)
        return largest + jnp.log(self.over_devices(jnp.exp(here - largest)))

    def sum(self, values: Array) -> Array:
        """The sum over all classes."""
        return self.over_devices(jnp.sum(values, -1))

    def over_devices(self, here: Array) -> Array:
        """The sum over the devices that share the classes."""
        return here if self.axis_name is None else lax.psum(here, self.axis_name)

    def at(self, values_CKV: Array, target_CT: Array) -> Array:
        """The values at each token's target classes, (C, K, T); NaN where there is none."""
        local_CT = target_CT
        if self.axis_name is not None:
            local_CT = target_CT - self.here * lax.axis_index(self.axis_name)
        is_here_CT = (local_CT >= 0) & (local_CT < self.here)
        index_C1T = jnp.where(is_here_CT, local_CT, 0)[:, None]
        found_CKT = jnp.take_along_axis(values_CKV, index_C1T, -1)
        found_CKT = self.over_devices(jnp.where(is_here_CT[:, None], found_CKT, 0))
        exists_CT = (target_CT >= 0) & (target_CT < self.count)
        return jnp.where(exists_CT[:, None], found_CKT, jnp.nan)

    def best(self, values_CV: Array) -> Array:
        """The class of the largest value, the first of several."""
        values_CV = lax.stop_gradient(values_CV)
        best_C = jnp.argmax(values_CV, -1)
        if self.axis_name is None:
            return best_C
        high_C = jnp.max(values_CV, -1)
        best_C = best_C + self.here * lax.axis_index(self.axis_name)
        is_highest_C = high_C == lax.pmax(high_C, self.axis_name)
        return lax.pmin(jnp.where(is_highest_C, best_C, self.count), self.axis_name)


@jax.custom_jvp
def _log_sum_exp(logits: Array) -> Array:
    """logsumexp over the last axis, whose derivative forms the softmax anew."""
    return logsumexp(logits, -1)


@_log_sum_exp.defjvp
def _log_sum_exp_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (logits,), (tangent,) = primals, tangents
    y = _log_sum_exp(logits)
    return y, jnp.sum(jnp.exp(logits - y[..., None]) * tangent, -1)
