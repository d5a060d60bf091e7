"""The first of a row's largest and whether all of it is finite: compiled and in torch."""

from __future__ import annotations

import pytest
import torch

from espalier.nn.kernels.compiling import SWITCH, kernels_in_use
from espalier.nn.kernels.logits import survey


@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("classes", [1, 16, 97, 4099])
def test_ties_go_to_the_first_and_what_is_not_finite_is_told(
    way: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "torch":
        monkeypatch.setenv(SWITCH, "off")
    elif kernels_in_use()[0] != "compiled":
        pytest.skip(kernels_in_use()[1])
    z = torch.randn(40, classes + 3, generator=torch.Generator().manual_seed(0))[:, :classes]  # rows lie apart
    z[:20] = z[:20].round()  # many ties
    wanted = [int((row == row.max()).nonzero()[0]) for row in z]
    assert survey(z) == (wanted, [True] * 40)
    for row, value in enumerate((float("nan"), float("inf"), float("-inf"))):
        z[7 * row, (classes - 1) // (row + 1)] = value
    assert survey(z)[1] == [row not in (0, 7, 14) for row in range(40)]
    assert survey(z[:0]) == ([], [])
