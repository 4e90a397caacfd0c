"""The API reference: a page for each public module, and a check that no public name is missing.

A public module is one that has ``__all__``, but for those of formulas alone, which have pages.
"""

import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import zeta
from pages import bars_escaped, write_pages
from zeta._formula import Formula

_logger = logging.getLogger(__name__)

_PAGE = """\
# {name}

```{{eval-rst}}
.. automodule:: {name}
   :exclude-members: {left_out}
{inherited}```
"""

# What softmax heads share is in a class that has no page; frameworks' own are not repeated.
_INHERITED = {name: "   :inherited-members: Module\n" for name in ("zeta.nn", "zeta.flax")}

_INDEX = """\
# API reference

Every public name of every public module, from its docstring.

```{{toctree}}
:maxdepth: 1

{names}
```
"""


@functools.cache
def public_modules() -> list[ModuleType]:
    """``zeta`` and each of its public modules, by name."""
    names = [found.name for found in pkgutil.walk_packages(zeta.__path__, "zeta.")]
    public = [name for name in names if "._" not in name and _has_all(name)]
    modules = [zeta, *map(importlib.import_module, sorted(public))]
    return [module for module in modules if not _is_of_formulas(module)]


def _is_of_formulas(module: ModuleType) -> bool:
    return all(isinstance(getattr(module, name), Formula) for name in module.__all__)


def _has_all(name: str) -> bool:
    """Looked up in the source: some modules cannot be imported beside others."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    return "\n__all__ =" in text or '"__all__"' in text


def _write(app: Sphinx) -> None:
    modules = {module.__name__: module for module in public_modules()}
    pages = {
        f"{name}.md": _PAGE.format(
            name=name,
            left_out=", ".join(_documented_elsewhere(module)),
            inherited=_INHERITED.get(name, ""),
        )
        for name, module in modules.items()
    }
    pages["index.md"] = _INDEX.format(names="\n".join(modules))
    write_pages(Path(app.srcdir) / "api", pages)


def _documented_elsewhere(module: ModuleType) -> Iterator[str]:
    """What the module's page leaves out.

    Modules, formulas (they have pages of their own), what a nearer module makes public, and fields
    whose default is a function: they stand among their class's attributes.
    """
    for name in module.__all__:
        value = getattr(module, name)
        home = _homes().get(id(value), module.__name__)
        if isinstance(value, ModuleType | Formula) or home != module.__name__:
            yield name
        elif hasattr(value, "_fields"):  # likewise of a named tuple
            yield from value._fields
        elif isinstance(value, type) and dataclasses.is_dataclass(value):
            yield from (
                field.name for field in dataclasses.fields(value) if callable(field.default)
            )


@functools.cache
def _homes() -> dict[int, str]:
    """Of every public object by identity, the public module that is nearest to its source."""
    homes: dict[int, str] = {}
    for module in public_modules():
        for name in module.__all__:
            value = getattr(module, name)
            defined_in = getattr(value, "__module__", None) or ""
            if f"{defined_in}.".startswith(f"{module.__name__}."):
                homes[id(value)] = module.__name__  # the longest name comes last
    return homes


def _escape_bars(_app: Sphinx, _kind: str, _name: str, *rest: Any) -> None:
    lines = rest[-1]
    lines[:] = [line if line.lstrip().startswith(">>>") else bars_escaped(line) for line in lines]


def _check(app: Sphinx, env: BuildEnvironment) -> None:
    """Complain of every public name that the site does not document."""
    domain = env.domains["py"]
    assert isinstance(domain, PythonDomain)
    known = {*domain.objects, *domain.modules}
    names = {
        (module.__name__, name): getattr(module, name)
        for module in public_modules()
        for name in module.__all__
    }
    documented = {id(value) for key, value in names.items() if ".".join(key) in known}
    for (module_name, name), value in names.items():
        if id(value) not in documented:
            _logger.warning("%s.%s is public and undocumented", module_name, name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources; check once all are read."""
    app.connect("builder-inited", _write)
    app.connect("autodoc-process-docstring", _escape_bars)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
