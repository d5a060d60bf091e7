"""Log-probabilities and their gradients through the head: compiled and in plain torch, against float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from espalier.nn import crossentropy
from espalier.nn.crossentropy import Head, head_cross_entropy, head_logp
from espalier.nn.kernels.compiling import SWITCH, kernels_in_use


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "torch":
        monkeypatch.setenv(SWITCH, "off")
    elif kernels_in_use()[0] != "compiled":
        pytest.skip(kernels_in_use()[1])
    yield request.param


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test goes over several chunks, the last one short."""
    monkeypatch.setattr(crossentropy, "CHUNK_ROWS", 32)


def _logp(exact: list[Tensor], head: Head) -> Tensor:
    hidden, matrix, bias = exact
    logits = head.scale * (hidden @ matrix.t() + (bias if head.bias is not None else 0))
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits.log_softmax(-1)


OPTIONS = {
    "bare": (None, 1.0, False),
    "capped": (3.0, 1.0, False),
    "scaled": (None, 0.25, False),
    "biased": (None, 1.0, True),
    "all": (4.0, 1.7, True),
}


class Case:
    """Rows, a head of `classes`, targets and weights, in float32 or bfloat16, and the same in float64."""

    def __init__(self, classes: int, options: tuple[float | None, float, bool], dtype: torch.dtype, picks: int = 0):
        torch.manual_seed(classes)
        softcap, scale, biased = options
        self.inputs = [torch.randn(70, 48).to(dtype), (torch.randn(classes, 48) * 0.3).to(dtype), torch.randn(classes)]
        self.inputs[2] = self.inputs[2].to(dtype)
        self.given = [x.clone().requires_grad_() for x in self.inputs]
        self.exact = [x.double().requires_grad_() for x in self.inputs]
        self.head = Head(self.given[1], softcap, scale, self.given[2] if biased else None)
        self.targets = torch.randint(0, classes, (70, picks) if picks else (70,))
        self.weights = torch.rand(self.targets.shape) - 0.3
        self.used = 3 if biased else 2
        self.bound = 2e-6 if dtype == torch.float32 else 1e-2

    def compare(self, ours: Tensor, theirs: Tensor, probe: Tensor) -> None:
        _close(ours, theirs, self.bound)
        found = torch.autograd.grad(ours, self.given[: self.used], probe.to(ours.dtype))
        wanted = torch.autograd.grad(theirs, self.exact[: self.used], probe.double())
        for one, other in zip(found, wanted, strict=True):
            _close(one, other, self.bound)


def _close(ours: Tensor, theirs: Tensor, bound: float) -> None:
    ours, theirs = ours.detach().double(), theirs.detach()
    worst = float((ours - theirs).abs().max() / theirs.abs().max())
    assert worst < bound, f"{worst:.1e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("classes", [1003, 512, 3])
def test_cross_entropy(way: str, classes: int, options: tuple[float | None, float, bool], dtype: torch.dtype) -> None:
    case = Case(classes, options, dtype)
    ours = head_cross_entropy(case.given[0], case.head, case.targets, case.weights) * 0.5
    logp = _logp(case.exact, case.head)
    theirs = -(logp.gather(1, case.targets[:, None])[:, 0] * case.weights).sum() * 0.5
    case.compare(ours, theirs, torch.ones(()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("picks", [0, 1, 5])
def test_log_probabilities_of_one_or_several_targets(
    way: str, picks: int, options: tuple[float | None, float, bool], dtype: torch.dtype
) -> None:
    case = Case(203, options, dtype, picks)
    if picks == 5:
        case.targets[:, 3] = case.targets[:, 1]  # the same class twice
    ours = head_logp(case.given[0], case.head, case.targets)
    assert ours.dtype == torch.float32
    assert ours.shape == case.targets.shape
    logp = _logp(case.exact, case.head)
    theirs = logp.gather(1, case.targets.view(70, -1)).view(case.targets.shape)
    case.compare(ours, theirs, torch.randn(case.targets.shape))


def test_a_bare_matrix_is_a_head(way: str) -> None:
    case = Case(50, OPTIONS["bare"], torch.float32)
    of_head = head_cross_entropy(case.given[0], case.head, case.targets, case.weights)
    assert torch.equal(of_head, head_cross_entropy(case.given[0], case.given[1], case.targets, case.weights))
    assert torch.equal(
        head_logp(case.given[0], case.head, case.targets), head_logp(case.given[0], case.given[1], case.targets)
    )


def test_a_frozen_head_gets_no_gradient(way: str) -> None:
    hidden, matrix = torch.randn(5, 16, requires_grad=True), torch.randn(9, 16)
    head_cross_entropy(hidden, matrix, torch.zeros(5, dtype=torch.long), torch.ones(5)).backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert matrix.grad is None


def test_no_rows_cost_nothing(way: str) -> None:
    hidden, matrix = torch.zeros(0, 16, requires_grad=True), torch.randn(9, 16, requires_grad=True)
    loss = head_cross_entropy(hidden, matrix, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert matrix.grad is not None and not matrix.grad.any()
    assert head_logp(hidden, matrix, torch.zeros(0, 2, dtype=torch.long)).shape == (0, 2)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_its_row_alone(way: str, wrong: float) -> None:
    hidden, matrix = torch.randn(3, 16), torch.randn(9, 16)
    hidden[1, 0] = wrong
    logp = head_logp(hidden, matrix, torch.tensor([1, 2, 3]))
    assert not logp[1].isfinite()
    assert logp[[0, 2]].isfinite().all()


@pytest.mark.parametrize("target", [-100, 9])
def test_a_target_that_is_no_class_is_refused(way: str, target: int) -> None:
    with pytest.raises(IndexError, match="none of the head's 9 classes"):
        head_logp(torch.randn(2, 16), torch.randn(9, 16), torch.tensor([1, target]))
