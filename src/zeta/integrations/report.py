"""What model surgery did, and what it could not see."""

import html
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Replaced:
    """One place of the model whose activation was replaced.

    Attributes:
        name: the place's qualified name; empty for the model itself.
        old, new: what stood there and what stands there now, as ``print`` shows them.
        gain: the factor that matches the new activation to the old one; None where it is not
            matched.
    """

    name: str
    old: str
    new: str
    gain: float | None = None


@dataclass(frozen=True)
class FunctionCall:
    """An activation that is called as a function, which surgery leaves as it is.

    Attributes:
        function: the function's name, ``"relu"`` for ``F.relu``, ``torch.relu`` and ``x.relu()``.
        module: the qualified name of the module whose ``forward`` calls it, empty for the model;
            on Flax the function that calls it, ``"Block.__call__"``.
        line: file and line of the call; empty where unknown.
    """

    function: str
    module: str
    line: str = ""

    def __str__(self) -> str:
        line = f" ({self.line})" if self.line else ""
        return f"{self.function} in {_shown(self.module)}{line}"


@dataclass(frozen=True)
class SurgeryReport:
    """What model surgery changed.

    ``print`` it, or show it in a notebook.

    Attributes:
        model: the model with its new activations: the model that was given, changed in place,
            except where that was itself the activation, and on Keras, which copies.
        replaced: every place that changed, in the model's order.
        calls: the activations that are called as functions and so stay as they are.
        not_looked: why ``calls`` may be incomplete; empty if the whole model was looked through.
        not_called: the places that the example inputs did not reach; on Keras and Flax with gain
            matching only.
        not_matched: the places where gain matching found nothing to match by, since an output was
            constant or not finite.
        lost: what the old activations had and the new ones have not.
        configured: the activation that a transformers model's configuration still names, which
            ``from_pretrained`` would build; empty for other models.
        left: the activations that :func:`~zeta.integrations.replace_gates` left, with the reason.
        noun: what was replaced, activations or gates.
    """

    model: Any
    replaced: tuple[Replaced, ...]
    calls: tuple[FunctionCall, ...] = ()
    not_looked: str = ""
    not_called: tuple[str, ...] = ()
    not_matched: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    configured: str = ""
    left: tuple[str, ...] = ()
    noun: str = "activation"
    _undo: Callable[[], Any] = field(repr=False, kw_only=True)

    def undo(self) -> Any:
        """Put the former activations back, the same objects, and return the former model.

        Raises:
            RuntimeError: a place holds something else by now, by a later surgery say, which is to
                be undone first.
        """
        return self._undo()

    def __str__(self) -> str:
        width = max(len(_shown(r.name)) for r in self.replaced)
        lines = [f"replaced {self._count} in {type(self.model).__name__}"]
        lines += [f"  {_shown(r.name):<{width}}  {_change(r)}" for r in self.replaced]
        for title, items in self._notes():
            lines += [title, *(f"  {item}" for item in items)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(_shown(r.name))}</td><td>{html.escape(_change(r))}</td></tr>"
            for r in self.replaced
        )
        notes = "".join(
            f"<p>{html.escape(title)}</p><ul>"
            + "".join(f"<li>{html.escape(item)}</li>" for item in items)
            + "</ul>"
            for title, items in self._notes()
        )
        heading = f"replaced {self._count} in {type(self.model).__name__}"
        return f"<p>{html.escape(heading)}</p><table>{rows}</table>{notes}"

    @property
    def _count(self) -> str:
        number = len(self.replaced)
        return f"{number} {self.noun}{'s' if number > 1 else ''}"

    def _notes(self) -> list[tuple[str, list[str]]]:
        repeated = Counter(map(str, self.calls))
        calls = [f"{call} ×{n}" if n > 1 else call for call, n in repeated.items()]
        notes = [
            ("left as they are, since code calls them:", calls),
            ("left as they are:", list(self.left)),
            ("not looked for activations called as functions:", [self.not_looked]),
            ("not reached by the example inputs:", list(map(_shown, self.not_called))),
            (
                "not matched, for an output is constant or not finite:",
                list(map(_shown, self.not_matched)),
            ),
            ("not carried over from the old activations:", list(self.lost)),
            (
                "what save_pretrained writes, and from_pretrained builds, is the former model:",
                [self.configured],
            ),
        ]
        return [(title, items) for title, items in notes if any(items)]


def _shown(name: str) -> str:
    return name or "the model itself"


def _change(replaced: Replaced) -> str:
    gain = "" if replaced.gain is None else f", gain {replaced.gain:.4g}"
    return f"{replaced.old} → {replaced.new}{gain}"
