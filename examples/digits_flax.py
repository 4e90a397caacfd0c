"""Handwritten digits in Flax: a learnable Exo and a mixture of softmaxes.

Run: python examples/digits_flax.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from zeta.flax import Exo, MixtureOfSoftmaxes


class Model(nnx.Module):
    """One hidden layer, its activation with one alpha per unit."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(64, 64, rngs=rngs)
        self.activation = Exo(learnable=True, num_parameters=64, channel_dim=-1)
        self.head = MixtureOfSoftmaxes(3, 64, 10, rngs=rngs)

    def features(self, x: jax.Array) -> jax.Array:
        """What the head takes."""
        return self.activation(self.linear(x))


@nnx.jit
def train_step(model: Model, optimizer: nnx.Optimizer[Model], x: jax.Array, y: jax.Array) -> None:
    """One step down the loss, which takes features, not probabilities: all in log space."""
    gradients = nnx.grad(lambda m: m.head.loss(m.features(x), y))(model)
    optimizer.update(model, gradients)


def main(epochs: int = 20) -> float:
    """Train, and give the accuracy on held-out images."""
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (images / 16).astype("float32"), labels, random_state=0
    )
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    key = jax.random.key(0)
    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.fold_in(key, epoch), len(x_train))
        for batch in jnp.split(order[: len(order) // 128 * 128], len(order) // 128):
            train_step(model, optimizer, x_train[batch], y_train[batch])
    return jnp.mean(model.head(model.features(x_test)).argmax(-1) == y_test).item()


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
