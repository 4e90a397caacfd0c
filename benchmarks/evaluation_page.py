"""Write docs/evaluation_results.md from the folder of a finished `zeta evaluate`.

zeta evaluate --out zeta-report
python benchmarks/evaluation_page.py zeta-report --out docs/evaluation_results.md
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from zeta.evaluate.results import Comparison, Overall, Question, Results
from zeta.evaluate.runs import rebuild
from zeta.evaluate.versus import describe, versus
from zeta.evaluate.wording import listing, signed

HEADS = ("words_softmax", "words_mixture", "words_selu_softmax")


def page(results: Results, command: str) -> str:
    """The whole page in Markdown."""
    return "\n\n".join(
        [
            "# Results of the full evaluation",
            "Generated; do not edit. The commands:",
            f"```console\n$ {command}\n$ python benchmarks/evaluation_page.py zeta-report "
            "--out docs/evaluation_results.md\n```",
            f"**{results.conclusion.headline}.** {results.conclusion.paragraph}",
            *_sentences(results),
            f"## Candidates against {results.settings.reference}",
            _comparisons(results, "baseline"),
            "## Trained parameters against their frozen twins",
            _comparisons(results, "ablation"),
            "## All tasks together",
            *_across(results),
            "## Output layers",
            "The same words by one softmax, a mixture of two, and `selu_softmax`; paired by "
            "activation and seed.",
            *_heads(results),
            "## Scores",
            _scores(results),
            "## Protocol",
            "\n".join(f"1. {rule}" for rule in results.protocol),
            "## Environment",
            "\n".join(f"- {label}: {found}" for label, found in results.environment.items()),
            f"{results.timing['run']:.0f} trials run and {results.timing['resumed']:.0f} resumed "
            f"in {results.timing['seconds'] / 60:.1f} minutes.",
        ]
    )


def _sentences(results: Results) -> Iterable[str]:
    spoken = results.conclusion.candidates | {
        f"{name}, its parameters": text for name, text in results.conclusion.ablations.items()
    }
    yield "\n".join(f"- **{name}**: {text}." for name, text in spoken.items())


def _comparisons(results: Results, question: Question) -> str:
    asked = [c for c in results.comparisons if c.question == question]
    return _table(
        ["task", "candidate", "reference", "difference", "95 % interval", "p (BH)", "verdict"],
        [
            (
                c.task,
                c.candidate,
                c.reference,
                signed(c.mean),
                f"{signed(c.low)} to {signed(c.high)}",
                f"{c.p_adjusted:.3f}",
                _marked(c),
            )
            for c in asked
        ],
    )


def _marked(c: Comparison | Overall) -> str:
    return f"**{c.verdict}**" if c.verdict in ("better", "worse") else c.verdict.value


def _across(results: Results) -> Iterable[str]:
    across = results.across
    if across is None:
        return
    yield _table(
        ["activation", "interquartile mean", "95 % interval"],
        [
            (a.activation, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}")
            for a in across.aggregates
            for m in [a.interquartile_mean]
        ],
    )
    yield _table(
        ["candidate", "against", "mean difference", "95 % interval", "p (BH)", "verdict"],
        [
            (
                o.candidate,
                o.reference,
                signed(o.difference.value),
                f"{signed(o.difference.low)} to {signed(o.difference.high)}",
                f"{o.p_adjusted:.4f}",
                _marked(o),
            )
            for o in across.overall
        ],
    )
    if ranking := across.ranking:
        ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in ranking.ranks.items())
        yield (
            f"Mean ranks over {ranking.tasks} tasks (1 is best): {ranks}. Friedman's p "
            f"{ranking.p_value:.4f}; Nemenyi's critical difference "
            f"{ranking.critical_difference:.2f}."
        )
    if across.left_out:
        left_out = [f"{listing(tasks)} ({why})" for why, tasks in across.reasons.items()]
        yield f"Left out: {'; '.join(left_out)}."


def _heads(results: Results) -> Iterable[str]:
    first, *others = [name for name in HEADS if name in results.settings.tasks]
    for other in others:
        yield "\n".join(
            f"- {line}" for line in describe(versus(results, other, first), results.names)
        )


def _scores(results: Results) -> str:
    return _table(
        ["task", "activation", "mean ± sd", "learning rate", "diverged", "parameters", "step, ms"],
        [
            (
                s.task,
                s.activation,
                f"{s.mean:.4f} ± {s.sd:.4f}",
                f"{s.learning_rate:g}",
                s.diverged,
                s.parameters,
                f"{s.step_ms:.3f}",
            )
            for s in results.scores
        ],
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    """Read the folder, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--command", default="zeta evaluate --out zeta-report")
    options = parser.parse_args()
    results = rebuild([options.folder], options.folder)
    options.out.write_text(page(results, options.command) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
