"""The mixture's loss in TensorFlow's graphs; run by test_backends.py on that backend."""

import numpy as np
import pytest
import tensorflow as tf
from check_mixture import TARGET, K, V, inputs, loss_of


@pytest.mark.parametrize("xla", [False, True])
def test_in_a_graph_with_any_number_of_tokens(xla):
    arrays = inputs()

    @tf.function(
        jit_compile=xla, input_signature=None if xla else [tf.TensorSpec((None,), tf.int64)]
    )
    def loss(target):
        hidden, log_prior, *decoder = (tf.constant(a) for a in arrays)
        n = tf.shape(target)[0]
        return loss_of(
            hidden[:n],
            log_prior[:n],
            *decoder,
            target=target,
            reduction="none",
            max_chunk_bytes=2 * K * V * 4,
        )

    eager = loss_of(*map(tf.constant, arrays), reduction="none")
    np.testing.assert_allclose(loss(tf.constant(TARGET)), eager, rtol=1e-5)
    bad = np.where(TARGET == 6, V, TARGET)
    assert np.isnan(loss(tf.constant(bad))).tolist() == [t == 6 for t in TARGET]
