"""What a leaderboard runs: all entries on a few cheap tasks, and round by round fewer on more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zeta._formula import Formula
from zeta._modules import CLASSES
from zeta.activations import CATALOGUE, GATES
from zeta.evaluate.protocol import DEFAULT_REFERENCE, FIRST_FINAL_SEED, TUNING_SEEDS, Settings
from zeta.evaluate.tasks.condition import under

__all__ = ["ACTIVATIONS", "DIVISIONS", "Division", "Round"]

# Seeds of the confirmation: none of its splits had a part in choosing who is there.
_FRESH_SEED = 1000


@dataclass(frozen=True)
class Round:
    """Entries that meet on the same tasks.

    Attributes:
        title: a line for the page.
        tasks: as they are named on the command line.
        entries: how many of the best of the last selecting round take part, beside those that
            every round has; None for all that it had.
        tuning_seeds, num_seeds, first_seed: as in :class:`zeta.evaluate.Settings`.
        selects: whether it decides who goes on, and where entries are placed; the others tell
            how robust their scores are.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    entries: int | None = None
    tuning_seeds: tuple[int, ...] = TUNING_SEEDS
    num_seeds: int = 10
    first_seed: int = FIRST_FINAL_SEED
    selects: bool = True

    def settings(self, entries: Sequence[str], tasks: Sequence[str], reference: str) -> Settings:
        """What is to be trained.

        Args:
            tasks: those of the round whose data are installed.
        """
        return Settings(
            candidates=tuple(name for name in entries if name != reference),
            tasks=tuple(tasks),
            num_seeds=self.num_seeds,
            reference=reference,
            baselines=(reference,),
            tuning_seeds=self.tuning_seeds,
            ablated=False,
            first_seed=self.first_seed,
        )


@dataclass(frozen=True)
class Division:
    """Entries that are compared with one another.

    Attributes:
        formulas: its entries, by name.
        reference: what all are compared with.
        kept: entries that every round has, whatever they scored.
    """

    name: str
    formulas: Mapping[str, Formula]
    reference: str
    kept: tuple[str, ...]
    rounds: tuple[Round, ...]


_SCREEN = ("digits", "housing", "photograph", "shuttle_stream")
_SECOND = (*_SCREEN, "digits_conv", "photograph_waves", "deep_housing")
_GATED = ("digits_gated", "housing_gated")

#: Every formula of one input.
ACTIVATIONS = Division(
    name="activations",
    formulas=CATALOGUE,
    reference=DEFAULT_REFERENCE,
    kept=(*CLASSES, DEFAULT_REFERENCE, "relu", "gelu"),
    rounds=(
        Round("screen", "all, cheaply", _SCREEN, tuning_seeds=TUNING_SEEDS[:3], num_seeds=5),
        Round("second", "the best of the screen", _SECOND, entries=25),
        Round(
            "confirmation",
            "the best of those, on fresh splits",
            (*_SECOND, "patches"),
            entries=10,
            num_seeds=20,
            first_seed=_FRESH_SEED,
        ),
        Round(
            "matched",
            "with variance-preserving initialisation",
            tuple(under(name, "matched") for name in ("digits", "housing", "deep_housing")),
            entries=5,
            selects=False,
        ),
        Round(
            "long",
            "with four times the budget, a cosine schedule and validation stopping",
            tuple(under(name, "4x") for name in ("digits", "housing")),
            entries=5,
            selects=False,
        ),
    ),
)
#: Those of a usual leaderboard, activations and then gates.
DIVISIONS = (
    ACTIVATIONS,
    Division(
        name="gates",
        formulas=GATES,
        reference="swiglu",
        kept=("swiglu", "glu", "geglu"),
        rounds=(
            Round("screen", "all gates, cheaply", _GATED),
            Round(
                "confirmation",
                "the best of them, on fresh splits",
                _GATED,
                entries=5,
                num_seeds=20,
                first_seed=_FRESH_SEED,
            ),
        ),
    ),
)
