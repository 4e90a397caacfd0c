"""What every engine's workers do."""

from zeta.evaluate import Budget, TrialKey
from zeta.evaluate.engines.worker import work


def test_a_worker_of_another_version_says_so() -> None:
    key = TrialKey("digits", "d", "relu", "f", 0.01, 1, "final", Budget(1, 2, 3), protocol=999)
    assert "and not 999: install the same version" in work([key])
