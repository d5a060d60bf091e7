"""Quantised weights against bitsandbytes 0.50 (what its reference kernels gave for the same numbers) and autograd."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.nn.adapterwork import logits, loss, stir
from torch import Tensor, nn

from espalier.core.errors import InvalidInput, MissingExtra
from espalier.nn import quantized
from espalier.nn.adapters import attach_adapters, save_adapter
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.export import save_base
from espalier.nn.lora import LoraSpec
from espalier.nn.quantized import (
    BitsandbytesNf4,
    Int8Matrix,
    Nf4Matrix,
    QuantizedLinear,
    measure_footprint,
    quantise_matrix,
    quantise_model,
)
from espalier.nn.streaming import load_quantised
from espalier.testing.families import make_family


def _weight(rows: int, columns: int) -> Tensor:
    numbers = np.random.default_rng(7).standard_normal((rows, columns), dtype=np.float32)
    return torch.from_numpy(numbers) * 0.02


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def test_nf4_codes_scales_and_values_are_those_of_bitsandbytes_to_the_bit() -> None:
    plain, double = Nf4Matrix(_weight(512, 640), double=False), Nf4Matrix(_weight(512, 640))
    assert _digest(plain.codes) == "34a04563d9cfa88d8c19d973068f10b02be1a97652686ec49997e81817c309ce"
    assert _digest(plain.largest) == "af522e9e764cfbe35101f751a1205699fa8f5ed1e247daef73216d588db9a74e"
    dequantised = plain.dequantise(torch.float32)
    assert _digest(dequantised) == "8238750071f963c9f32d0bde3d652a066c604d5bc680b9e515e06d1d053a65e7"
    assert _digest(double.codes) == _digest(plain.codes)
    assert _digest(double.largest) == "b404101b7cde89755a5af0362fe7f5a36639909e48fdddf2ba3b853cfb095877"


def test_int8_codes_are_those_of_bitsandbytes() -> None:
    matrix = Int8Matrix(_weight(512, 640))
    assert _digest(matrix.codes) == "6225ee54f179ea081d5a9d914eb3d39faa65050833562b1c0d08fdd467ac01b1"


def test_the_published_code_book_comes_back_from_its_own_values() -> None:
    book = torch.tensor(quantized.NF4).repeat(8).view(2, 64) * 0.5
    assert torch.equal(Nf4Matrix(book, double=False).dequantise(torch.float32), book)


@given(st.integers(1, 9), st.integers(1, 150), st.floats(1e-6, 1e3), st.booleans())
def test_every_number_is_within_half_a_step_of_its_block(rows: int, columns: int, size: float, double: bool) -> None:
    weight = _weight(rows, columns) * size
    error = (Nf4Matrix(weight, double=double).dequantise(torch.float32) - weight).abs().view(-1)
    largest = nn.functional.pad(weight.view(-1), (0, -weight.numel() % 64)).view(-1, 64).abs().amax(1)
    allowed = largest.repeat_interleave(64)[: weight.numel()] * 0.1521  # half the widest gap, -1 to -0.696
    slack = 0.1 * float(largest.max()) if double else 1e-6 * float(largest.max())  # the largest numbers' own rounding
    assert bool((error <= allowed + slack).all())
    near = (Int8Matrix(weight).dequantise(torch.float32) - weight).abs()
    assert bool((near <= weight.abs().amax(1, keepdim=True) * (0.5 / 127 + 1e-6)).all())


def test_zeros_stay_zeros() -> None:
    for matrix in (Nf4Matrix(torch.zeros(3, 70)), Int8Matrix(torch.zeros(3, 70))):
        assert torch.equal(matrix.dequantise(torch.float32), torch.zeros(3, 70))


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
@pytest.mark.parametrize("bias", [True, False])
def test_products_forward_and_back_are_those_of_the_dequantised_weight(scheme: Any, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(70, 20, bias=bias)
    quantised = QuantizedLinear(layer, scheme)
    dense = quantised.weight.dequantise(torch.float32)
    x, same = (torch.arange(420.0).view(2, 3, 70).sin().requires_grad_() for _ in range(2))
    found, expected = quantised(x), nn.functional.linear(same, dense, layer.bias)
    assert torch.equal(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(x.grad, same.grad)
    assert not list(quantised.weight.parameters())


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_on_a_quantised_base_learns_as_on_its_dequantised_weights(
    base: LoadedBase, tiny_folder: Path, scheme: Any, dora: bool
) -> None:
    spec = LoraSpec(rank=3, dora=dora)
    footprint = quantise_model(base.model, scheme)
    assert footprint.quantised_parameters == 2 * (48 * 48 * 2 + 48 * 24 * 2 + 3 * 48 * 96)
    plain = load_base(f"path:{tiny_folder}")
    with torch.no_grad():
        for name, layer in base.model.named_modules():
            if isinstance(layer, QuantizedLinear):
                plain.model.get_submodule(name).weight.copy_(layer.weight.dequantise(torch.float32))
    pairs = [attach_adapters(loaded.model, spec, seed=1) for loaded in (base, plain)]
    for adapters in pairs:
        stir(adapters.parameters())
    assert not pairs[0].is_plain
    losses = [loss(loaded.model) for loaded in (base, plain)]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
    for value in losses:
        value.backward()
    for own, reference in zip(pairs[0].parameters(), pairs[1].parameters(), strict=True):
        torch.testing.assert_close(own.grad, reference.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("quantise", ["none", "nf4"])
@pytest.mark.parametrize("dora", [False, True])
def test_under_autocast_it_computes_in_its_type_and_learns_in_float32(
    tiny_folder: Path, quantise: Any, dora: bool
) -> None:
    found = []
    for cast in (False, True):
        base = load_base(f"path:{tiny_folder}", quantise=quantise)
        adapters = attach_adapters(base.model, LoraSpec(rank=3, dora=dora, targets=("q_proj", "down_proj")), seed=1)
        stir(adapters.parameters())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
            value = loss(base.model)
        value.backward()
        found.append((value.detach(), [p.grad for p in adapters.parameters()]))
    (exact, gradients), (near, others) = found
    assert exact != near
    assert abs(float(exact - near)) < 0.05
    for own, reference in zip(others, gradients, strict=True):
        assert own.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(own.flatten(), reference.flatten(), dim=0) > 0.98


def test_a_base_is_quantised_as_it_is_loaded_and_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_base(f"path:{tiny_folder}", quantise="nf4")
    assert base.quantised == "nf4"
    assert type(base.model.get_output_embeddings()) is nn.Linear
    assert torch.isfinite(logits(base.model)).all()
    assert base.base_digest == load_base(f"path:{tiny_folder}").base_digest
    save_adapter(tmp_path, attach_adapters(base.model, LoraSpec(rank=2), seed=0), base)
    assert json.loads((tmp_path / "espalier.json").read_text())["quantised"] == "nf4"
    with pytest.raises(InvalidInput, match="nf4"):
        save_base(tmp_path / "base", base)


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
@pytest.mark.parametrize("family", ["llama-3", "qwen-2.5", "qwen-3", "gemma-3", "qwen-3-moe", "phi"])
def test_what_is_loaded_a_tensor_at_a_time_is_what_is_loaded_whole(scheme: Any, family: str, tmp_path: Path) -> None:
    folder = make_family(family, tmp_path)
    found = load_base(f"path:{folder}", quantise=scheme)
    whole = load_base(f"path:{folder}")
    quantise_model(whole.model, scheme)
    assert torch.equal(logits(found.model), logits(whole.model))
    assert found.eos_ids == whole.eos_ids
    assert measure_footprint(found.model) == measure_footprint(whole.model)
    streamed = load_quantised(folder, whole.config, torch.float32, scheme, torch.device("cpu"))
    assert (streamed is not None) == (family in ("llama-3", "qwen-2.5", "qwen-3", "phi"))


def test_the_footprint_is_what_the_tensors_take() -> None:
    model = nn.Sequential(nn.Linear(256, 512, bias=False), nn.LayerNorm(512))
    before = measure_footprint(model)
    assert (before.parameters, before.bytes) == (256 * 512 + 1024, 4 * (256 * 512 + 1024))
    after = quantise_model(model, "nf4")
    assert after.parameters == before.parameters
    assert 4.126 < after.bits_per_quantised_weight < 4.14
    assert after.bytes == after.quantised_bytes + 4 * 1024
    plain = nn.Sequential(nn.Linear(256, 512, bias=False))
    assert quantise_model(plain, "nf4", double=False).bits_per_quantised_weight == 4.5
    eight = nn.Sequential(nn.Linear(256, 512, bias=False))
    assert quantise_model(eight, "int8").bits_per_quantised_weight == 8 + 32 / 256
    assert quantise_model(nn.Sequential(nn.LayerNorm(4)), "nf4").bits_per_quantised_weight == 0


class _StrictBitsandbytes(ModuleType):
    """bitsandbytes.functional, as documented: exactly these arguments, on whatever device."""

    def quantize_4bit(
        self,
        A: Tensor,  # noqa: N803 - their names
        absmax: Tensor | None = None,
        out: Tensor | None = None,
        blocksize: int | None = None,
        compress_statistics: bool = False,
        quant_type: str = "fp4",
        quant_storage: torch.dtype = torch.uint8,
    ) -> tuple[Tensor, Any]:
        assert A.is_contiguous()
        assert (absmax, out, blocksize, quant_type, quant_storage) == (None, None, 64, "nf4", torch.uint8)
        made = Nf4Matrix(A, double=compress_statistics)
        nested = SimpleNamespace(absmax=made.scales) if compress_statistics else None
        offset = made.offset if compress_statistics else None
        state = SimpleNamespace(absmax=made.largest, state2=nested, offset=offset, made=made, dtype=A.dtype)
        return made.codes[:, None], state

    def dequantize_4bit(self, A: Tensor, quant_state: Any = None) -> Tensor:  # noqa: N803
        assert torch.equal(A[:, 0], quant_state.made.codes)
        return quant_state.made.dequantise(quant_state.dtype)


def test_bitsandbytes_is_called_as_it_documents_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    functional = _StrictBitsandbytes("bitsandbytes.functional")
    package = ModuleType("bitsandbytes")
    package.functional = functional  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", functional)
    weight = _weight(20, 128)
    for double, beside in ((True, 40 + 4 + 4), (False, 160)):
        theirs, ours = BitsandbytesNf4(weight.t().contiguous().t(), double=double), Nf4Matrix(weight, double=double)
        assert torch.equal(theirs.dequantise(torch.bfloat16), ours.dequantise(torch.bfloat16))
        assert theirs.state_bytes == beside


def test_without_bitsandbytes_its_matrix_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra) as caught:
        BitsandbytesNf4(_weight(2, 64))
    assert "espalier[qlora]" in caught.value.hint
    assert isinstance(quantise_matrix(_weight(2, 64), "nf4"), Nf4Matrix)  # on a CPU it is not asked for
