"""Optimizers against torch's own, and states that bring a run back to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from espalier.nn.optimizers import AdamW, Muon, Optimizer, orthogonalised

Make = Callable[[Mapping[str, Tensor]], Optimizer]
MAKERS: dict[str, Make] = {
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
    "muon": lambda p: Muon(p, lr=0.02, weight_decay=0.1),
}


def _parameters() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(6, 4, generator=draw).requires_grad_() for name in ("a", "b")}


def _steps(optimizer: Optimizer, parameters: dict[str, Tensor], start: int, count: int) -> None:
    for step in range(start, start + count):
        draw = torch.Generator().manual_seed(100 + step)
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step(1.0 / (step + 1))


def test_adamw_makes_torchs_steps() -> None:
    ours, theirs = _parameters(), _parameters()
    mine = AdamW(ours, lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    reference = torch.optim.AdamW(list(theirs.values()), lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    for step in range(5):
        draw = torch.Generator().manual_seed(step)
        for a, b in zip(ours.values(), theirs.values(), strict=True):
            a.grad = torch.randn(a.shape, generator=draw)
            b.grad = a.grad.clone()
        mine.step(1.0)
        reference.step()
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter, theirs[name])


def test_muon_moves_as_torchs_muon() -> None:
    ours, theirs = _parameters(), _parameters()
    mine = Muon(ours, lr=0.02, momentum=0.95)
    reference = torch.optim.Muon(list(theirs.values()), lr=0.02, momentum=0.95, weight_decay=0.0)
    for step in range(4):
        draw = torch.Generator().manual_seed(step)
        for a, b in zip(ours.values(), theirs.values(), strict=True):
            a.grad = torch.randn(a.shape, generator=draw)
            b.grad = a.grad.clone()
        mine.step(1.0)
        reference.step()
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter, theirs[name], rtol=0, atol=4e-3)  # both iterate in bf16


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 40, 16), (2, 16, 40)])
def test_an_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(batch))
    assert float(values.min()) > 0.3 and float(values.max()) < 1.4


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_restored_optimizer_goes_on_to_the_bit(make: Make) -> None:
    whole = _parameters()
    _steps(make(whole), whole, 0, 6)
    first = _parameters()
    optimizer = make(first)
    _steps(optimizer, first, 0, 3)
    second = {name: parameter.detach().clone().requires_grad_() for name, parameter in first.items()}
    resumed = make(second)
    resumed.load_state({name: value.clone() for name, value in optimizer.state().items()})
    _steps(resumed, second, 3, 3)
    assert all(torch.equal(second[name], whole[name]) for name in whole)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_parameter_without_a_gradient_stays_as_it_is(make: Make) -> None:
    parameters = _parameters()
    before = parameters["b"].detach().clone()
    optimizer = make(parameters)
    parameters["a"].grad = torch.ones(6, 4)
    optimizer.step(1.0)
    assert torch.equal(parameters["b"], before)
    assert not torch.equal(parameters["a"], before)
