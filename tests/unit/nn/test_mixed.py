from __future__ import annotations

import pytest
import torch
from torch import nn

from espalier.core.errors import NotFound, UnsupportedModel
from espalier.nn.adapters import AdapterWeights
from espalier.nn.lora import LoraSpec
from espalier.nn.mixed import AdapterBank, MixedLinear, Place


def make_weights(rank: int, seed: int, layer: str = "up") -> AdapterWeights:
    generator = torch.Generator().manual_seed(seed)
    pair = (torch.randn(rank, 6, generator=generator), torch.randn(5, rank, generator=generator))
    return AdapterWeights(LoraSpec(rank=rank), {layer: pair}, {})


@pytest.fixture
def bank() -> AdapterBank:
    bank = AdapterBank(torch.float32, torch.device("cpu"))
    for name in ("up", "other"):
        bank.declare(name, [Place(name, 6, 5)])
    bank.add("x", make_weights(2, 1))
    bank.add("y", make_weights(3, 2))
    bank.add("z", make_weights(4, 3, layer="other"))
    return bank


def expect(layer: MixedLinear, x: torch.Tensor, weights: AdapterWeights | None) -> torch.Tensor:
    y = layer.base(x)
    return y if weights is None else y + x @ weights.layers["up"][0].t() @ weights.layers["up"][1].t()


def test_each_row_gets_its_own_adapter_and_no_other(bank: AdapterBank) -> None:
    layer = MixedLinear(nn.Linear(6, 5), "up", bank)
    x = torch.randn(1, 7, 6)
    bank.select([("y", 2), ("", 1), ("x", 3), ("z", 1)])
    with torch.inference_mode():
        found = layer(x)[0]
        owners = [make_weights(3, 2)] * 2 + [None] + [make_weights(2, 1)] * 3 + [None]
        for row, weights in enumerate(owners):
            torch.testing.assert_close(found[row], expect(layer, x[0, row : row + 1], weights)[0])
        bank.select([("", 7)])
        assert torch.equal(layer(x), layer.base(x))


def test_infinities_in_one_adapter_reach_no_other_request(bank: AdapterBank) -> None:
    wild = make_weights(2, 9)
    wild.layers["up"][0].fill_(3e38)
    bank.add("wild", wild)
    layer = MixedLinear(nn.Linear(6, 5), "up", bank)
    bank.select([("wild", 1), ("x", 1)])
    with torch.inference_mode():
        found = layer(torch.ones(1, 2, 6))[0]
    assert not found[0].isfinite().all()
    assert found[1].isfinite().all()


def test_an_adapter_that_is_gone_is_not_answered_with_anothers_weights(bank: AdapterBank) -> None:
    bank.select([("x", 1), ("y", 1)])
    bank.remove("x")
    with pytest.raises(NotFound):
        bank.select([("x", 1), ("y", 1)])
    assert bank.digests() == ["y", "z"]


def make_dora(rank: int, seed: int) -> AdapterWeights:
    plain = make_weights(rank, seed)
    gains = torch.rand(5, generator=torch.Generator().manual_seed(seed)) + 0.5
    a, b = plain.layers["up"]
    return AdapterWeights(LoraSpec(rank=rank, dora=True), {"up": (a, b * gains[:, None])}, {}, {"up": gains})


def test_a_doras_gains_reach_its_own_rows_only_and_not_the_bias(bank: AdapterBank) -> None:
    bank.add("d", make_dora(3, 5))
    bank.add("e", make_dora(2, 6))
    layer = MixedLinear(nn.Linear(6, 5), "up", bank)
    owners = ["x", "d", "", "e", "d", "z"]
    x = torch.randn(1, len(owners), 6)
    bank.select([(owner, 1) for owner in owners])
    plain = {"x": make_weights(2, 1), "z": None, "": None}
    with torch.inference_mode():
        found = layer(x)[0]
        for row, owner in enumerate(owners):
            own = x[0, row : row + 1]
            if owner in plain:
                wanted = expect(layer, own, plain[owner])
            else:
                dora = make_dora(3, 5) if owner == "d" else make_dora(2, 6)
                a, b = dora.layers["up"]
                wanted = own @ layer.base.weight.t() * dora.gains["up"] + own @ a.t() @ b.t() + layer.base.bias
            torch.testing.assert_close(found[row], wanted[0])
        bank.narrow(torch.tensor([1, 5]))
        torch.testing.assert_close(layer(x[:, [1, 5]])[0], found[[1, 5]])
        bank.select([("d", 2)])
        torch.testing.assert_close(layer(x[:, [1, 4]])[0], found[[1, 4]])


def test_an_adapter_on_a_layer_that_is_no_place_is_refused_by_name(bank: AdapterBank) -> None:
    with pytest.raises(UnsupportedModel, match="router"):
        bank.add("r", make_weights(2, 1, layer="router"))
    assert "r" not in bank
