"""A quantised base as a folder of its own: the same numbers back, the same bytes again, and its distance measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.nn.adapterwork import logits

from espalier.core.errors import DigestMismatch, InvalidInput, UnsupportedModel
from espalier.core.types import Example, Message
from espalier.nn.adapters import attach_adapters, read_adapter, save_adapter
from espalier.nn.base import load_base, outline_base
from espalier.nn.export import save_base
from espalier.nn.fidelity import compare_bases
from espalier.nn.locate import count_held_bytes, count_parameters
from espalier.nn.lora import LoraSpec
from espalier.nn.quantisedbase import read_origin, save_quantised
from espalier.nn.quantized import Int8Matrix, QuantizedLinear, measure_footprint
from espalier.testing.families import make_family
from espalier.tokens.mask import supervise

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SCHEMES = ("int8", "nf4")


def _write(source: Path, folder: Path, scheme: Any) -> str:
    base = load_base(f"path:{source}", dtype="stored", quantise=scheme, device="cpu")
    return save_quantised(base, folder)


@pytest.fixture(scope="module", params=["llama-3", "gemma-3", "qwen-3-moe"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(request.param, tmp_path_factory.mktemp("original"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_written_is_read_back_to_the_bit_and_written_again_to_the_byte(
    original: Path, tmp_path: Path, scheme: Any
) -> None:
    digest = _write(original, tmp_path / "one", scheme)
    assert _write(original, tmp_path / "two", scheme) == digest
    held = load_base(f"path:{original}", quantise=scheme)
    read = load_base(f"path:{tmp_path / 'one'}")
    assert (read.quantised, read.base_digest) == (scheme, digest)
    assert read.base_digest != held.base_digest
    kinds = {name: type(module) for name, module in read.model.named_modules()}
    assert kinds == {name: type(module) for name, module in held.model.named_modules()}
    for name, tensor in held.model.state_dict().items():
        assert torch.equal(read.model.state_dict()[name], tensor), name
    assert measure_footprint(read.model) == measure_footprint(held.model)
    torch.testing.assert_close(logits(read.model), logits(held.model), rtol=1e-6, atol=1e-6)
    assert count_parameters(tmp_path / "one") == count_parameters(original)
    assert count_held_bytes(tmp_path / "one", 4) == measure_footprint(held.model).bytes
    assert count_held_bytes(original, 4) == 4 * count_parameters(original)
    origin = read_origin(tmp_path / "one")
    assert origin["base_digest"] == held.base_digest
    assert origin["quantised"]["scheme"] == scheme
    assert load_base(f"path:{tmp_path / 'one'}", quantise=scheme).base_digest == digest
    assert (read.tokenizer_digest, read.template_digest) == (held.tokenizer_digest, held.template_digest)


def test_files_that_lack_a_tensor_or_hold_a_strange_one_are_refused(original: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _write(original, tmp_path, "int8")
    whole = load_file(tmp_path / "model.safetensors")
    name = next(name for name in whole if name.endswith("q_proj.weight.codes"))
    for wrong in (
        {key: tensor for key, tensor in whole.items() if key != name},
        whole | {"model.strange": torch.zeros(2)},
        whole | {name: whole[name][:-1].contiguous()},
    ):
        save_file(wrong, tmp_path / "model.safetensors")
        with pytest.raises(InvalidInput, match="do not fit"):
            load_base(f"path:{tmp_path}")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"espalier_quantised": {"scheme": "int3"}}))
    with pytest.raises(UnsupportedModel, match="int3"):
        load_base(f"path:{tmp_path}")


def test_a_quantised_base_is_neither_quantised_again_nor_written_as_an_original(tmp_path: Path) -> None:
    source = make_family("llama-3", tmp_path / "source")
    _write(source, tmp_path / "made", "int8")
    with pytest.raises(InvalidInput, match="already"):
        load_base(f"path:{tmp_path / 'made'}", quantise="nf4")
    with pytest.raises(InvalidInput, match="held in int8"):
        save_base(tmp_path / "out", load_base(f"path:{tmp_path / 'made'}"))
    with pytest.raises(InvalidInput, match="not held quantised"):
        save_quantised(load_base(f"path:{source}"), tmp_path / "out")


def test_an_adapter_of_the_original_is_refused_on_the_quantised_base_and_one_of_its_own_is_not(tmp_path: Path) -> None:
    source = make_family("llama-3", tmp_path / "source")
    _write(source, tmp_path / "made", "int8")
    for name in ("source", "made"):
        base = load_base(f"path:{tmp_path / name}")
        save_adapter(tmp_path / f"of-{name}", attach_adapters(base.model, LoraSpec(rank=2), seed=0), base)
    made = load_base(f"path:{tmp_path / 'made'}")
    assert read_adapter(tmp_path / "of-made", made).rank == 2
    with pytest.raises(DigestMismatch):
        read_adapter(tmp_path / "of-source", made)
    assert outline_base(f"path:{tmp_path / 'made'}").base_digest == made.base_digest


@pytest.mark.parametrize("rows", [1, 5, 8, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_the_int8_product_of_few_rows_is_the_dense_one(rows: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    dense = torch.nn.Linear(96, 64, bias=bias, dtype=torch.bfloat16)
    layer = QuantizedLinear(dense, "int8")
    x = torch.randn(1, rows, 96, generator=generator).bfloat16()
    matrix = layer.weight
    assert isinstance(matrix, Int8Matrix)
    assert (matrix.multiply_few(x[0]) is None) == (rows > 8)
    assert matrix.multiply_few(x[0].float()) is None
    with torch.inference_mode():
        found = layer(x).float()
    wanted = x.double() @ matrix.dequantise(torch.float32).double().t()
    if dense.bias is not None:
        wanted = wanted + dense.bias.detach().double()
    torch.testing.assert_close(found, wanted.float(), rtol=2e-2, atol=2e-2)
    assert float((found - wanted).norm() / wanted.norm()) < 5e-3


def test_the_int8_product_is_not_asked_where_its_kernel_would_read_beyond(tmp_path: Path) -> None:
    for shape in ((64, 80), (40, 96)):
        matrix = Int8Matrix(torch.randn(shape))
        assert matrix.multiply_few(torch.randn(2, shape[1]).bfloat16()) is None
    matrix = Int8Matrix(torch.randn(64, 96))
    assert matrix.multiply_few(torch.randn(2, 96).bfloat16()) is not None
    matrix.codes = torch.zeros(64 * 96 + 8, dtype=torch.int8)[8:].view(64, 96)
    assert matrix.multiply_few(torch.randn(2, 96).bfloat16()) is None


def test_fidelity_is_what_its_definition_says(tmp_path: Path) -> None:
    source = make_family("llama-3", tmp_path / "source")
    _write(source, tmp_path / "made", "nf4")
    original, other = load_base(f"path:{source}"), load_base(f"path:{tmp_path / 'made'}")
    example = Example("one", [Message("user", "The code is one."), Message("assistant", "The quick brown fox")])
    same, apart = (next(iter(compare_bases(original, base, [example]))) for base in (original, other))
    assert (same.perplexity_ratio, same.agreement, same.divergence) == (1.0, 1.0, 0.0)

    ids, weights = supervise(original.tokenizer, example.messages)
    ratio, agreed, divergence, count = 0.0, 0, 0.0, 0
    with torch.no_grad():
        given = torch.tensor([ids])
        p, q = (base.model(input_ids=given).logits[0].double().log_softmax(-1) for base in (original, other))
    for i in range(1, len(ids)):
        if weights[i] > 0:
            ratio += float(p[i - 1, ids[i]] - q[i - 1, ids[i]])
            agreed += int(p[i - 1].argmax() == q[i - 1].argmax())
            divergence += float((p[i - 1].exp() * (p[i - 1] - q[i - 1])).sum())
            count += 1
    assert apart.tokens == count
    assert apart.perplexity_ratio == pytest.approx(math.exp(ratio / count), rel=1e-4)
    assert apart.agreement == pytest.approx(agreed / count)
    assert apart.divergence == pytest.approx(divergence / count, rel=1e-3, abs=1e-6)
    assert apart.divergence > 0


def test_bases_of_two_tokenizers_are_not_compared(tmp_path: Path) -> None:
    bases = [load_base(f"path:{make_family(name, tmp_path / name)}") for name in ("llama-3", "qwen-2.5")]
    with pytest.raises(InvalidInput, match="tokenizer"):
        list(compare_bases(bases[0], bases[1], [Example("one", [Message("user", "a"), Message("assistant", "b")])]))
