"""The rows of softmax heads: every implementation against the definition in float64."""

import pytest
import torch

from cases import fraction, name
from zeta import activations, formula, math as zm
from zeta.kernels import compiler, mixture, mixture_cpu
from zeta.kernels.mixture import Joint, Rows, Scales

N, K, D, T = 5, 3, 4, 3


@formula(slope=0.7, bend=0.2)
def tilted(x, slope, bend):
    """A user's own; of its derivative by bend, slope·sin(x), a sum takes the slope out."""
    return slope * (x + bend * zm.sin(x))


FORMULAS = [activations.identity, activations.softcap, activations.selu, tilted]


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
        assert mixture_cpu.kernel(activations.identity, torch.float32), compiler.status().reason
    return request.param


def wide_of(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def make_rows(V, dtype=torch.float32, k=K, separate=False, bias=True, formula=FORMULAS[0]):
    """Rows as the two decoders lay them out, with targets that repeat and one that is elsewhere."""
    logits = (3 * torch.randn(*((k, N) if separate else (N, k)), V)).to(dtype)
    target = torch.randint(V, (N, T))
    target[1] = -1
    target[3, 1] = target[3, 0]
    target[4, 2] = -2
    wide = wide_of(dtype)
    offset = torch.randn(*((k,) if separate else ()), V, dtype=wide) if bias else None
    parameters = torch.tensor([*formula.parameters.values()], dtype=wide)
    view = logits.transpose(0, 1) if separate else logits
    return Rows(view, offset, target, formula, parameters)


def definition(rows, joint_log_prior, mass_V, scales):
    """In float64: the statistics, the distribution, and the gradients by logits and parameters."""
    logits = rows.logits_NKV.to(torch.float64, copy=True)
    logits = (logits if rows.bias is None else logits + rows.bias.double()).requires_grad_()
    parameters = rows.parameters_P.to(torch.float64, copy=True).requires_grad_()
    f = rows.formula(logits, *parameters)
    log_softmax = f.log_softmax(-1)
    joint = joint_log_prior.double().unsqueeze(2) + log_softmax
    log_p, share = joint.logsumexp(1), joint.softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    here = rows.target_NT >= 0
    index = rows.target_NT.clamp(min=0).unsqueeze(1).expand(-1, f.shape[1], -1)
    value = f.gather(2, index).masked_fill(~here.unsqueeze(1), 0)
    # What has the wanted gradient by f.
    p = log_softmax.exp().detach()
    by_f = scales.by_prob.double().unsqueeze(2) * p
    by_f = by_f.scatter_add(2, index, -(scales.by_target.double() * here.unsqueeze(1)))
    if scales.by_entropy is not None:
        surprise = log_p + entropy.unsqueeze(1)
        by_f = by_f + scales.by_entropy.double()[:, None, None] * p * surprise.unsqueeze(1)
    if scales.by_class is not None:
        by_f = by_f - scales.by_class.double()[:, None, None] * mass_V.double() * share
    gradients = torch.autograd.grad(f, (logits, parameters), by_f.detach(), allow_unused=True)
    mass = torch.zeros(f.shape[2]).double() if mass_V is None else mass_V.double()
    return {
        "high": f.amax(-1),
        "log_sum": f.logsumexp(-1),
        "value": value,
        "mass_log_prob": (mass * log_p).sum(1),
        "response": (mass * share).sum(2),
        "entropy": entropy,
        "prediction": log_p.argmax(1),
        "by_logits": gradients[0],
        "by_parameters": gradients[1],
    }


def make_scales(k, wide, entropy, smoothing):
    scales = Scales(
        torch.randn(N, k, dtype=wide),
        torch.randn(N, k, T, dtype=wide),
        torch.randn(N, dtype=wide) if entropy else None,
        torch.rand(N, dtype=wide) if smoothing else None,
    )
    for part in scales:  # a token that counts for nothing
        if part is not None:
            part[2] = 0
    return scales


def close(ours, truth, dtype, size):
    """Within a few roundings of the arithmetic, which sums so many, and one of the storage."""
    wide = wide_of(dtype)
    eps = 40 * torch.finfo(wide).eps + torch.finfo(dtype).eps * (wide != dtype)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    bound = eps * truth.detach().abs() + 40 * torch.finfo(wide).eps * size + tiny
    assert ((ours.double() - truth).abs() <= bound).all()


SIZES = [1, 16, 17, 507, 1041, 5000]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter computes with NumPy
@pytest.mark.parametrize(("V", "separate", "dtype"), fraction(2, SIZES, [False, True], DTYPES))
def test_everything_but_entropy(implementation, V, separate, dtype):
    if implementation == "triton" and (dtype == torch.float64 or V not in (1, 17, 1041)):
        return  # has no float64; its interpreter takes seconds
    check(make_rows(V, dtype, K, separate, V != 17, FORMULAS[V % 4]), V % 2 == 1, False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("V", "function", "smoothing"),
    fraction(2, [1, 17, 507, 2049], FORMULAS, [False, True]),
    ids=name,
)
def test_one_mixture(implementation, V, function, smoothing):
    check(make_rows(V, k=1, formula=function), smoothing, True)


def check(rows, smoothing, entropy):
    dtype, (_, k, V) = rows.logits_NKV.dtype, rows.logits_NKV.shape
    wide = wide_of(dtype)
    log_prior = torch.randn(N, k, dtype=wide).log_softmax(-1)
    mass = torch.rand(V, dtype=wide) / V if smoothing else None
    scales = make_scales(k, wide, entropy, smoothing)
    truth = definition(rows, log_prior, mass, scales)
    found = mixture.statistics(rows)
    close(found.high, truth["high"], dtype if wide == dtype else wide, 10)
    close(found.high + found.total.log(), truth["log_sum"], wide, 10)
    close(found.value, truth["value"], wide, 10)
    joint = Joint(log_prior - found.total.log(), mass)
    of = mixture.distribution(rows, found, joint)
    for part in ("mass_log_prob", "response", "entropy"):
        close(getattr(of, part), truth[part], wide, 20)
    assert torch.equal(of.prediction, truth["prediction"])
    learns = len(rows.parameters_P) > 0
    totals = mixture.write_gradient(
        rows, found, joint, scales, of.entropy if entropy else None, learns
    )
    close(rows.logits_NKV, truth["by_logits"], dtype, 20)
    assert (rows.logits_NKV[2] == 0).all()
    assert (totals is not None) == learns
    if learns:
        close(totals, truth["by_parameters"], wide, 20 * N * k)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_logits(implementation):
    """Far apart, huge, impossible; a NaN is not lost, and scales of 0 clear whatever is there."""
    values = [[1e4, -1e4, 0.0], [3e38, 3e38, -3e38], [-torch.inf, 0.0, 1.0], [torch.nan, 0.0, 1.0]]
    logits = torch.tensor(values).unsqueeze(1)
    target = torch.tensor([0, 1, 2, 2]).unsqueeze(1)
    rows = Rows(logits, None, target, activations.identity, torch.empty(0))
    found = mixture.statistics(rows)
    expected = logits.double().softmax(-1)
    joint = Joint(-found.total.log(), torch.tensor([0.0, 1.0, 1.0]))
    of = mixture.distribution(rows, found, joint)
    assert of.entropy[:3].isfinite().all()
    assert of.prediction[:3].tolist() == [0, 0, 2]
    one = torch.ones(4, 1)
    scales = Scales(one, one.unsqueeze(2), torch.ones(4), torch.zeros(4))
    write = (found, joint, scales._replace(by_entropy=torch.zeros(4)), of.entropy, False)
    mixture.write_gradient(rows._replace(logits_NKV=(some := logits.clone())), *write)
    expected.scatter_add_(2, target.unsqueeze(2), -torch.ones(4, 1, 1).double())
    torch.testing.assert_close(some.double(), expected, equal_nan=True, rtol=1e-6, atol=1e-7)
    assert some[3].isnan().all()
    again = rows._replace(logits_NKV=logits.clone())
    mixture.write_gradient(again, found, joint, scales, of.entropy, False)
    assert again.logits_NKV[:3].isfinite().all()  # of p·log p too, where p is 0
    zeros = Scales(*(torch.zeros_like(scale) for scale in scales))
    mixture.write_gradient(rows, found, joint, zeros, of.entropy, False)
    assert (logits == 0).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_class_without_mass_may_be_impossible(implementation):
    rows = make_rows(50)
    rows.logits_NKV[:, :, 7] = -torch.inf
    rows.target_NT.fill_(3)
    mass = torch.ones(50).index_fill(0, torch.tensor(7), 0)
    found = mixture.statistics(rows)
    joint = Joint(torch.zeros(N, K) - found.total.log(), mass)
    of = mixture.distribution(rows, found, joint)
    assert all(part.isfinite().all() for part in of)
    mixture.write_gradient(
        rows,
        found,
        joint,
        Scales(torch.ones(N, K), torch.ones(N, K, T), None, torch.ones(N)),
        None,
        False,
    )
    assert rows.logits_NKV.isfinite().all()


@formula(shift=0.0)
def fallen(x, shift):
    return -zm.sqrt(x + shift)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("learns", [False, True])
def test_a_certain_class_may_have_an_infinite_slope(implementation, learns):
    """It is the target, so its gradient is exactly 0, and so are the impossible ones'."""
    logits = torch.tensor([[[0.0, 1e8, 1e8]]])
    rows = Rows(logits, None, torch.tensor([[0]]), fallen, torch.zeros(1))
    found = mixture.statistics(rows)
    one = torch.ones(1, 1)
    scales = Scales(one, one.unsqueeze(2))
    joint = Joint(-found.total.log(), None)
    total = mixture.write_gradient(rows, found, joint, scales, None, learns)
    assert (logits == 0).all()
    if learns and implementation != "plain":  # where autograd multiplies 0 by the slope
        assert total.item() == 0


def test_the_same_bits_for_any_number_of_threads():
    rows = make_rows(5000, formula=tilted)
    scales = make_scales(K, torch.float32, False, True)
    joint = Joint(torch.randn(N, K), torch.rand(5000))
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = rows._replace(logits_NKV=rows.logits_NKV.clone())
            found = mixture.statistics(again)
            of = mixture.distribution(again, found, joint)
            totals = mixture.write_gradient(again, found, joint, scales, None, True)
            results.append((*found, *of, again.logits_NKV, totals))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
