"""Model surgery: one function for every framework, and what it selects by."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from zeta._errors import nearest
from zeta.integrations.names import NAMES, activation_name, known, named, own_name, unmatched
from zeta.integrations.report import FunctionCall, SurgeryReport

if TYPE_CHECKING:
    from zeta._formula import Formula

# What to replace; see `replace_activations`.
What = type | tuple[type, ...] | str | Callable[[str, Any], bool]


def replace_activations(
    model: Any,
    what: What,
    replacement: str | Formula | Callable[[], Any],
    *,
    match_gain: bool = False,
    example_inputs: Any = None,
) -> SurgeryReport:
    r"""Swap a model's activations for others.

    A PyTorch or Flax NNX model is changed in place. Keras models cannot be: there the report's
    ``model`` is a copy with the same weights. Every place gets an instance of its own, except that
    a module shared by several places is replaced by one shared instance.

    On PyTorch the new modules take over the training flag, the hooks, and the device and dtype of
    the model around them. Hooks handed to the new module keep their handles. Parameters of an old
    activation, and a ``forward`` set on the instance, cannot be kept: the report's ``lost`` has
    them. Make optimizers, and wrap for distributed training, after the surgery: the new activations
    may have parameters.

    **Gain matching** puts c·g + b in the place of the old activation f, g being the new one. The
    scalar c and one shift b_k per channel k bring it closest to f over the inputs x of its place,

    .. math:: \min_{c,b} \sum_k E[(f(x_k) - c\,g(x_k) - b_k)^2], \quad
        c = \frac{\sum_k \mathrm{Cov}(f(x_k), g(x_k))}{\sum_k \mathrm{Var}(g(x_k))}, \quad
        b_k = E[f(x_k)] - c\,E[g(x_k)],

    so that over these inputs no place is farther off than without. The expectation is over what
    the example inputs bring to that place in the model as it was; without them over x ~ N(0, 1),
    with one shift for all channels, which suits places that normalisation precedes. Channels are
    the second dimension after PyTorch's convolutions, batch and group normalisation and after
    Keras's layers with "channels_first", the last one else; where their number differs from call
    to call, one shift serves all.

    Args:
        model: a ``torch.nn.Module``, an ``nnx.Module``, or a Sequential or functional Keras model.
        what: which activations. A type or a tuple of types; or a predicate of the qualified name
            and the module; or the name of an activation, ``"gelu"``, for every class that computes
            it, be it PyTorch's, transformers', timm's or Zeta's, approximations included; or else
            a shell pattern (``*``, ``?``, ``[…]``) that the whole qualified name must match,
            ``"encoder.*.act"``, where ``*`` matches dots too. Activations kept as functions
            (``self.act = F.gelu``, ``nnx.relu`` in a Sequential, ``Dense(8, activation="relu")``)
            are found by name, pattern and predicate, which is given the function.
        replacement: a name of the catalogue, a formula, a class, or a function that makes a module
            (``lambda: Exo(learnable=True)``).
        match_gain: match each new activation to the old one, as above.
        example_inputs: what one call of the model takes: a tuple of positional arguments, a dict
            of keyword arguments, or the one argument; on Keras, what the model takes as its inputs.
            The model as it was is run on it, once, in evaluation mode and without gradients, for
            gain matching and, on PyTorch and Flax, to find the activations that are called as
            functions. Without, :mod:`torch.fx` traces a PyTorch model, which not every model
            allows, and Flax models are not looked through; the code of Keras layers is traced in
            any case.

    Returns:
        The report: what changed, what could not be seen, and ``undo()``.

    Raises:
        ValueError: nothing matched, and the message lists the types that the model has, with the
            name that would match; or a gate, ``"glu"``, would be replaced by what is elementwise;
            or an activation with parameters per channel cannot be matched without example inputs.
        TypeError: no model, a scripted, quantised or distributed one, or a replacement that makes
            no module, or is a gate, for which there is :func:`replace_gates`.
        UnknownNameError: the replacement is no name of the catalogue.

    Example:
        >>> import torch, zeta
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        >>> report = zeta.replace_activations(model, torch.nn.ReLU, zeta.nn.Exo)
        >>> print(report)
        replaced 1 activation in Sequential
          1  ReLU() → Exo(alpha=1)
        >>> report.undo()[1]
        ReLU()
    """
    selection = Selection(what, _predicate(what))
    surgery = importlib.import_module(f"zeta.integrations.{_framework(model)}")
    report: SurgeryReport = surgery.replace(
        model, selection, replacement, match_gain=match_gain, example_inputs=example_inputs
    )
    return report


def replace_gates(
    model: Any, formula: str | Formula | Callable[[], Any] | None = None
) -> SurgeryReport:
    """Let one gate compute ``act(gate) * value`` in a PyTorch model's feed-forward layers.

    The product of an activation and a value, written so in the code of Llama, Mistral, Qwen, Gemma,
    T5, ModernBERT, Phi-3, Mixtral's experts and others, costs two operations each way and saves
    three tensors for backward; the gate of both is one kernel, which saves gate and value. No code
    is changed: what takes the activation's place waits for the product. The code is read for it:
    every result of the activation, ``self.act(…)``, must be a factor of a product. Where it meets
    something else at run time, such as a value of another shape or dtype, the activation and the
    product are computed one after the other, as before; so they are while a hook wants to see what
    the activation answers.

    Place, sharing, hooks, device, dtype, training flag and ``undo()`` are as for
    :func:`replace_activations`.

    Args:
        model: a ``torch.nn.Module``.
        formula: a gate for all places: a name of the catalogue, a formula of two inputs, or a
            function that makes a :class:`zeta.nn.GatedUnit`
            (``lambda: GatedUnit(swiglu_oai, learnable=True)``). By default the gate of the
            activation that stands there, so that the model computes the same: swiglu for SiLU,
            geglu and geglu_tanh for the two GELUs, reglu, glu for a sigmoid, bilinear for none;
            an activation without such a gate is left.

    Returns:
        The report: what changed, the activations that were ``left`` and why, and ``undo()``.

    Raises:
        ValueError: no place was found, and the message says of each activation why.
        TypeError: no PyTorch model, or a scripted, quantised or distributed one; a formula that has
            not two inputs.
        RuntimeError: from the model: a formula that is no activation times the value
            (``swiglu_oai``) meets a value of another shape, dtype or device.
        UnknownNameError: the formula is no name of the catalogue.

    Example:
        >>> import torch, zeta
        >>> class Block(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.gate, self.up = torch.nn.Linear(4, 8), torch.nn.Linear(4, 8)
        ...         self.act = torch.nn.SiLU()
        ...     def forward(self, x):
        ...         return self.act(self.gate(x)) * self.up(x)
        >>> print(zeta.replace_gates(Block()))
        replaced 1 gate in Block
          act  SiLU() → GatedUnit(swiglu)
    """
    if _framework(model) != "pytorch":
        raise TypeError(
            f"replace_gates takes a torch.nn.Module, got {type(model).__name__}: on Flax and Keras "
            "call a gate in the model's code, zeta.activations.swiglu(gate, value) say"
        )
    from zeta.integrations import pytorch_gates

    return pytorch_gates.replace(model, formula)


def _predicate(what: What) -> Callable[[str, Any], bool]:
    if isinstance(what, type):
        return lambda _, value: isinstance(value, what)
    if isinstance(what, tuple) and what and all(isinstance(each, type) for each in what):
        return lambda _, value: isinstance(value, what)
    if isinstance(what, str) and (names := known(what)):
        return lambda _, value: activation_name(value) in names
    if isinstance(what, str):
        return lambda name, _: bool(name) and fnmatchcase(name, what)  # not the model itself
    if callable(what) and (name := activation_name(what)):
        raise TypeError(f"to replace {name} give its name, {name!r}, or the type of its modules")
    if callable(what):
        return what
    raise TypeError(
        "what to replace must be a type, a tuple of types, the name of an activation, a pattern "
        f"for qualified names, or a predicate of name and module; got {what!r}"
    )


@dataclass(frozen=True)
class Selection:
    """``what`` of :func:`replace_activations`, called as a predicate of qualified name and module.

    An activation that an earlier surgery has matched counts as the one that it is.
    """

    what: What
    predicate: Callable[[str, Any], bool]

    def __call__(self, name: str, value: Any) -> bool:
        """Whether it selects what stands under a qualified name."""
        return self.predicate(name, unmatched(value))

    def nothing_matched(
        self, model: Any, values: Iterable[Any], calls: Iterable[FunctionCall] = (), why: str = ""
    ) -> ValueError:
        """The error of a surgery without a patient; ``values`` are all that could have matched."""
        values = list(values)
        counts = Counter(map(own_name, values))
        found = ", ".join(f"{name} ×{n}" if n > 1 else name for name, n in sorted(counts.items()))
        called = "; ".join(dict.fromkeys(map(str, calls)))
        hints = self._suggestions(Counter(map(activation_name, values)))
        hints += [f"Called as functions, which cannot be replaced: {called}."] if called else []
        hints += [f"{why}."] if why else []
        return ValueError(
            f"nothing in {type(model).__name__} matches {self._in_words()}; "
            f"it has: {found or 'no modules'}{'. ' if hints else ''}{' '.join(hints)}"
        )

    def _in_words(self) -> str:
        if isinstance(self.what, str) and known(self.what):
            return f"the name {self.what!r}"
        if isinstance(self.what, str):
            return f"{self.what!r}, as a pattern of qualified names, for it names no activation"
        types = " or ".join(each.__name__ for each in self._types())
        return f"the type {types}" if types else "the predicate"

    def _suggestions(self, has: Counter[str | None]) -> list[str]:
        """Names that would match where a type or a word does not; ``has`` counts the model's."""
        names = [named(each.__name__) for each in self._types()]
        names = [name for name in names if name and has[name]]
        if isinstance(self.what, str) and not known(self.what):
            names = [nearest(self.what, filter(None, has)) or nearest(self.what, NAMES)]
        return [
            f"Did you mean {name!r}{f' ({has[name]} of these)' if has[name] else ''}?"
            for name in names
            if name
        ]

    def _types(self) -> tuple[type, ...]:
        types = self.what if isinstance(self.what, tuple) else (self.what,)
        return tuple(each for each in types if isinstance(each, type))


def undone_out_of_order() -> RuntimeError:
    """The error of an ``undo()`` that would put an activation where another one stands by now."""
    return RuntimeError(
        "the model no longer holds what this surgery put there; undo later ones first"
    )


def call_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of one call of a model."""
    if isinstance(example_inputs, dict):
        return (), example_inputs
    return (example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)), {}


def _framework(model: Any) -> str:
    """The module beside this one that knows the model's framework."""
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    # Keras first: on its PyTorch backend a layer is a PyTorch module too.
    modules = {"keras": "keras", "torch": "pytorch", "flax": "flax"}
    found = next((modules[package] for package in modules if package in packages), None)
    if found is None:
        raise TypeError(
            "the model must be a torch.nn.Module, an nnx.Module or a keras.Model; "
            f"got {type(model).__name__}"
        )
    return found
