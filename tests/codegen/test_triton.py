"""The Triton printer; its kernels run in tests/kernels/test_gpu.py."""

import pytest

from cases import FORMULAS, name
from zeta.codegen import trace, triton


@pytest.mark.parametrize("f", FORMULAS, ids=name)
def test_sources_are_python_and_name_every_parameter(f):
    for program in (
        trace.value_program(f, {}),
        trace.gradient_program(f, {}, ("x", *f.scalars)),
    ):
        source = triton.source(program)
        compile(source, f.name, "exec")
        assert all(f"parameter_{parameter}_ptr" in source for parameter in program.parameters)


def test_a_constant_parameter_is_compiled_in():
    source = triton.source(trace.value_program(FORMULAS[0], {"alpha": 1.0}))
    assert "alpha" not in source
