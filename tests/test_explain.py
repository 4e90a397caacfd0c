"""What a formula says of itself."""

from zeta import activations, doctor, formula
from zeta._explain import explain
from zeta.math import piecewise, sqrt


def test_a_formula_with_kernels():
    found = explain(activations.exo)
    assert (found["inputs"], found["parameters"]) == ("x", "alpha=1")
    assert found["limits"] == "-1.0 at -inf, +inf at inf"
    assert found["CPU"].startswith("one kernel each way, of 8 and ")
    assert found["GPU"].startswith("one kernel each way")
    assert found["torch.compile"].startswith("CPU tensors of 262,144 elements a thread: the kernel")
    assert found["saved for backward"].startswith("the inputs alone, 4 bytes an element in float32")


def test_what_plain_operations_save():
    @formula
    def cube(x):
        return x * x * x

    # x, and its square.
    assert "(8 bytes an element in float32 by plain" in explain(cube)["saved for backward"]


def test_why_there_is_no_kernel():
    @formula
    def decided(x):
        return x if x > 0 else 0.1 * x

    assert explain(decided)["torch.compile"] == "its compiler fuses the plain operations"
    for device in ("CPU", "GPU"):
        assert explain(decided)[device].startswith("plain operations: a kernel decides nothing")
    assert "write zeta.math.piecewise" in explain(decided)["CPU"]
    assert "it raises TypeError" in explain(decided)["saved for backward"]


def test_why_a_kernel_does_not_run_here(monkeypatch):
    monkeypatch.setattr(doctor, "cpu_kernels", lambda: "plain operations: no C++ compiler")
    assert explain(activations.relu)["CPU"].endswith("; here plain operations: no C++ compiler")


def test_a_limit_that_there_is_not():
    @formula
    def root(x):
        return sqrt(piecewise(x, positive=lambda z: z, otherwise=lambda z: z))

    assert explain(root)["limits"] == "none at -inf, +inf at inf"


def test_explain_prints(capsys):
    activations.laplace.explain()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["formula", "laplace(x,", "mu=0.707107,", "sigma=0.282095)"]
    assert {line[18:20] for line in lines} == {"  "}
