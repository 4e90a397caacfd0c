"""The rows of a mixture: every implementation against the definition in float64."""

import pytest
import torch

from zeta.kernels import compiler, mixture, mixture_cpu
from zeta.kernels.mixture import Mass, Rows

N, K, D = 5, 3, 4


@pytest.fixture(params=["kernel", "triton", "plain"])
def implementation(request, monkeypatch):
    """Which code computes the rows."""
    if request.param == "triton":
        pytest.importorskip("triton", reason="Triton has no build for this platform")
        from zeta.runtime.triton import mixture as mixture_triton

        monkeypatch.setattr(mixture, "_kernels", lambda rows: mixture_triton)
    elif request.param == "plain":
        monkeypatch.setattr(mixture, "_kernels", lambda rows: None)
    else:
        assert mixture_cpu.kernel(torch.float32), compiler.status().reason
    return request.param


def make_rows(V, dtype=torch.float32, separate=False, bias=True, spread=3.0):
    """Rows as the two decoders lay them out, and what they are made of in float64."""
    logits = (spread * torch.randn(K, N, V) if separate else spread * torch.randn(N, K, V)).to(
        dtype
    )
    view = logits.transpose(0, 1) if separate else logits
    target = torch.randint(V, (N,))
    target[1] = -1
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    offset = torch.randn(*((K,) if separate else ()), V, dtype=wide) if bias else None
    exact = view.double() if offset is None else view.double() + offset.double()
    return Rows(view, offset, target), exact


def tolerance(dtype):
    """A few roundings of the arithmetic, and one of the storage."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return 20 * torch.finfo(wide).eps + torch.finfo(dtype).eps * (wide != dtype)


def takes(implementation, dtype):
    return implementation != "triton" or dtype != torch.float64


SIZES = [1, 7, 16, 17, 507, 1024, 1041, 5000]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter computes with NumPy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("V", SIZES)
def test_statistics_and_gradient(implementation, V, separate, dtype):
    if not takes(implementation, dtype):
        return
    rows, exact = make_rows(V, dtype, separate, bias=V != 17)
    found = mixture.statistics(rows)
    eps = tolerance(torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.high.double(), exact.amax(-1), rtol=eps, atol=eps)
    log_sum = found.high.double() + found.total.double().log()
    torch.testing.assert_close(log_sum, exact.logsumexp(-1), rtol=eps, atol=eps)
    expected = exact.take_along_dim(rows.target_N[:, None, None].clamp(min=0), 2).squeeze(2)
    expected[1] = 0
    torch.testing.assert_close(found.target_logit.double(), expected, rtol=eps, atol=eps)

    scale = torch.randn(N, K, dtype=found.high.dtype)
    scale[2] = 0
    onehot = torch.zeros_like(exact)
    for token, target in enumerate(rows.target_N.tolist()):
        onehot[token, :, target] = float(target >= 0)
    expected = scale.double().unsqueeze(2) * (exact.softmax(-1) - onehot)
    mixture.write_gradient(rows, found, scale)
    torch.testing.assert_close(
        rows.logits_NKV.double(), expected, rtol=tolerance(dtype), atol=eps + tiny(dtype)
    )


def tiny(dtype):
    """Where float16 becomes coarse."""
    return torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_logits(implementation):
    """Far apart, huge, impossible; a NaN is not lost, and a scale of 0 clears whatever is there."""
    values = [[1e4, -1e4, 0.0], [3e38, 3e38, -3e38], [-torch.inf, 0.0, 1.0], [torch.nan, 0.0, 1.0]]
    logits = torch.tensor(values).unsqueeze(1)
    rows = Rows(logits, None, torch.tensor([0, 1, 2, 2]))
    found = mixture.statistics(rows)
    expected = logits.double().softmax(-1)
    mixture.write_gradient(rows, found, torch.tensor([[1.0], [1.0], [1.0], [1.0]]))
    for token, target in enumerate(rows.target_N.tolist()):
        expected[token, 0, target] -= 1
    torch.testing.assert_close(logits.double(), expected, equal_nan=True, rtol=1e-6, atol=1e-7)
    assert logits[3].isnan().all()
    mixture.write_gradient(rows, found, torch.zeros(4, 1))
    assert (logits == 0).all()


def test_a_target_alone_as_mass_is_the_plain_case():
    """Label smoothing's code with no mass but the targets' gives what the kernels give."""
    rows, _ = make_rows(507, torch.float64)
    again = Rows(rows.logits_NKV.clone(), *rows[1:])
    log_prior = torch.randn(N, K, dtype=torch.float64).log_softmax(-1)
    coefficient = torch.randn(N, dtype=torch.float64)
    mass = Mass(torch.ones(N, dtype=torch.float64), None)
    found = mixture.statistics(rows)
    log_prob, response = mixture.respond_with_mass(rows, found, log_prior, mass)
    mixture.write_gradient_with_mass(rows, found, log_prior, mass, response, coefficient)
    expected, scale = mixture.respond(mixture.statistics(again), log_prior, coefficient)
    scale[1] = 0  # no target here
    mixture.write_gradient(again, found, scale)
    expected[1] = 0
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(response * coefficient.unsqueeze(1), scale)
    torch.testing.assert_close(rows.logits_NKV, again.logits_NKV)


def test_the_same_bits_for_any_number_of_threads():
    rows, _ = make_rows(5000)
    scale = torch.randn(N, K)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = Rows(rows.logits_NKV.clone(), *rows[1:])
            found = mixture.statistics(again)
            mixture.write_gradient(again, found, scale)
            results.append((*found, again.logits_NKV))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
