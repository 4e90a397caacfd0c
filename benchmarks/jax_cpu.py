"""JAX on the processor: jitted activations against GELU, softmax heads' losses against direct ones.

Run: python benchmarks/jax_cpu.py
"""

import functools
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

import zeta.jax
from zeta.activations import CATALOGUE, softcap

ELEMENTS = 2**20
N, K, D, V = 1024, 4, 256, 32768


def medians(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds per call; every round times every contender in turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def activations() -> None:
    """Forward and gradient by the input, relative to ``jax.nn.gelu(approximate=False)``."""
    x = jax.random.normal(jax.random.key(0), (ELEMENTS,))
    functions = {name: getattr(zeta.jax, name) for name in CATALOGUE}
    functions["jax.nn.gelu"] = lambda x: jax.nn.gelu(x, approximate=False)
    forward = {name: jax.jit(f) for name, f in functions.items()}
    gradient = {
        name: jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x)))) for name, f in functions.items()
    }
    columns = [
        medians({name: lambda f=f: f(x) for name, f in kind.items()}, rounds=60)
        for kind in (forward, gradient)
    ]
    print(f"{'2^20 elements':28}{'forward':>10}{'gradient':>10}   relative to jax.nn.gelu")
    for name in functions:
        ratios = [column[name] / column["jax.nn.gelu"] for column in columns]
        print(f"{name:28}" + "".join(f"{ratio:10.2f}" for ratio in ratios))


def direct(
    hidden: jax.Array, log_prior: jax.Array, weight: jax.Array, target: jax.Array
) -> jax.Array:
    """The loss in log space, all (N, K, V) logits at once."""
    logits = jnp.einsum("nkd,vd->nkv", hidden, weight)
    log_prob = jax.nn.logsumexp(log_prior[..., None] + jax.nn.log_softmax(logits), axis=1)
    return -jnp.take_along_axis(log_prob, target[:, None], 1).mean()


def direct_probabilities(
    hidden: jax.Array, log_prior: jax.Array, weight: jax.Array, target: jax.Array
) -> jax.Array:
    """The loss as the logarithm of the mixed probabilities."""
    probabilities = jax.nn.softmax(jnp.einsum("nkd,vd->nkv", hidden, weight))
    mixed = jnp.sum(jnp.exp(log_prior)[..., None] * probabilities, 1)
    return -jnp.log(jnp.take_along_axis(mixed, target[:, None], 1)).mean()


def mixture() -> None:
    """Loss and all gradients: seconds, and XLA's peak of temporary memory."""
    keys = jax.random.split(jax.random.key(0), 4)
    arguments = (
        jax.random.normal(keys[0], (N, K, D)),
        jax.nn.log_softmax(jax.random.normal(keys[1], (N, K))),
        0.05 * jax.random.normal(keys[2], (V, D)),
        jax.random.randint(keys[3], (N,), 0, V),
    )
    losses = {
        "direct, log space": direct,
        "direct, probabilities": direct_probabilities,
        "mixture_cross_entropy": zeta.jax.mixture_cross_entropy,
    }
    steps = {
        name: jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(*arguments).compile()
        for name, loss in losses.items()
    }
    seconds = medians({name: lambda s=s: s(*arguments) for name, s in steps.items()}, rounds=5)
    print(f"\n{f'N={N} K={K} D={D} V={V}':28}{'seconds':>10}{'MB':>10}")
    for name, step in steps.items():
        megabytes = step.memory_analysis().temp_size_in_bytes / 1e6
        print(f"{name:28}{seconds[name]:10.2f}{megabytes:10.0f}")


def capped(hidden: jax.Array, weight: jax.Array, target: jax.Array) -> jax.Array:
    """One softmax with a softcap, all (N, V) logits at once."""
    log_prob = softcap.log_softmax(hidden @ weight.T)
    return -jnp.take_along_axis(log_prob, target[:, None], 1).mean()


def one_softmax() -> None:
    """XLA's temporary memory of loss and gradients with a softcap; nothing is run."""
    chunked = functools.partial(zeta.jax.linear_cross_entropy, logits=softcap)
    print(f"\n{f'softcap, D={D} V={V}, MB':28}{'direct':>10}{'ours':>10}{'2 MB':>10}{'ratio':>10}")
    for tokens in (N, 8 * N):
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((tokens, D), (V, D))]
        target = jax.ShapeDtypeStruct((tokens,), jnp.int32)
        found = []
        for loss in (capped, chunked, functools.partial(chunked, max_chunk_bytes=2**21)):
            step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes, target)
            found.append(step.compile().memory_analysis().temp_size_in_bytes / 1e6)
        columns = "".join(f"{megabytes:10.0f}" for megabytes in found)
        print(f"{f'N={tokens}':28}{columns}{found[0] / found[1]:10.1f}")


if __name__ == "__main__":
    activations()
    mixture()
    one_softmax()
