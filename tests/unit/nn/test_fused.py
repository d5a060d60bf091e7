"""The fused step, compiled and in plain torch, against transformers' own model with each adapter merged into it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tests.unit.nn.families import configs, make_model
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

from espalier.core.errors import NotFound
from espalier.nn.adapters import AdapterWeights
from espalier.nn.fused import FusedDecoder, can_fuse
from espalier.nn.kernels.compiling import SWITCH, kernels_in_use
from espalier.nn.lora import LoraSpec
from espalier.nn.mixed import AdapterBank
from espalier.nn.quantized import QuantizedLinear, measure_footprint, quantise_model
from espalier.nn.slots import SlotCache, Span, Step

# Weights of several panels, of lengths that fill no last vector.
WIDE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 328,
    "intermediate_size": 424,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "head_dim": 16,
    "attn_implementation": "eager",
}
CONFIGS = configs() | {"llama, more than a panel": LlamaConfig(**WIDE)}
SLOTS, CONTEXT = 7, 96
in_both_forms = pytest.mark.parametrize("held", ["dense", "int8"])


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "torch":
        monkeypatch.setenv(SWITCH, "off")
    elif kernels_in_use()[0] != "compiled":
        pytest.skip(kernels_in_use()[1])
    yield request.param


@pytest.fixture
def compiled() -> None:
    if kernels_in_use()[0] != "compiled":
        pytest.skip(kernels_in_use()[1])


@dataclass
class Bench:
    """A model taken over by a fused step, beside an untouched one."""

    own: PreTrainedModel
    cache: SlotCache
    bank: AdapterBank
    step: FusedDecoder

    def run(self, decoding: Sequence[tuple[str, int, int]], chunks: Sequence[tuple[str, int, int, int]], ids: Tensor,
            deciding: Sequence[int], shared: int = 0) -> Tensor:  # fmt: skip
        """decoding: (adapter, slot, position); chunks: (adapter, slot, first, end)."""
        step = Step([slot for _, slot, _ in decoding], [position for _, _, position in decoding], shared=shared)
        positions, row = list(step.positions), len(decoding)
        for _, slot, first, end in chunks:
            step.spans.append(Span(row, row + end - first, slot, first))
            positions += range(first, end)
            row += end - first
        self.cache.begin(step)
        self.bank.select([*((name, 1) for name, *_ in decoding), *((c[0], c[3] - c[2]) for c in chunks)])
        return self.step(ids, torch.tensor(positions), torch.tensor(deciding, dtype=torch.int64)).float()


def take_over(family: str, dtype: torch.dtype = torch.float32, held: str = "dense") -> Bench:
    """With `held` "int8" the model has its linear layers in codes, and beside it stands what these are made dense."""
    model = make_model(CONFIGS[family])
    own = copy.deepcopy(model)
    model.to(dtype)
    if held == "int8":
        quantise_model(model, "int8")
        for name, layer in model.named_modules():
            if isinstance(layer, QuantizedLinear):
                own.get_submodule(name).weight.data = layer.weight.dequantise(torch.float32)
    assert can_fuse(model)
    cache = SlotCache(model, SLOTS, CONTEXT)
    bank = AdapterBank(dtype, torch.device("cpu"))
    bench = Bench(own, cache, bank, FusedDecoder(model, cache, bank))
    for number, name in enumerate(("few", "many", "dora", "head")):
        bank.add(name, make_adapter(own, name, number))
    return bench


def make_adapter(model: PreTrainedModel, kind: str, seed: int) -> AdapterWeights:
    """few: a small rank on some layers; many: another rank at every place; dora: with gains; head: on the head too."""
    draw = torch.Generator().manual_seed(seed)
    layers, gains = {}, {}
    for number, (name, module) in enumerate(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or (name == "lm_head") != (kind == "head" and name == "lm_head"):
            continue
        if kind == "few" and not name.endswith(("q_proj", "v_proj", "up_proj")):
            continue
        rank = 2 if kind == "few" else 3 + number % 6
        rows, columns = module.weight.shape
        layers[name] = (
            torch.randn(rank, columns, generator=draw) * columns**-0.5,
            torch.randn(rows, rank, generator=draw) * 0.3,
        )
        if kind == "dora" and not name.endswith("k_proj"):
            gains[name] = 1 + 0.3 * torch.randn(rows, generator=draw)
    return AdapterWeights(LoraSpec(rank=max(len(a) for a, _ in layers.values())), layers, {}, gains)


@torch.inference_mode()
def alone(bench: Bench, adapter: str, ids: Tensor) -> Tensor:
    """Logits (t, v) of one sequence by transformers in float64, the adapter merged into its weights."""
    model = copy.deepcopy(bench.own)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    if adapter:
        weights = bench.bank._loaded[adapter]
        for name, (a, b) in weights.layers.items():
            module = model.get_submodule(name)
            gain = weights.gains.get(name, torch.ones(len(b)))
            module.weight.data = gain[:, None] * module.weight + b.float() @ a.float()
    logits: Tensor = model.double()(input_ids=ids[None], use_cache=False).logits[0]
    return logits.float()


WHO = ["few", "", "many", "dora", "head", "many"]  # who stands in slots 0, 1, ...


def texts(count: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 97, (count, length), generator=torch.Generator().manual_seed(seed))


@in_both_forms
@pytest.mark.parametrize("family", CONFIGS)
@torch.inference_mode()
def test_rows_of_six_requests_equal_each_alone_with_its_adapter_merged(family: str, way: str, held: str) -> None:
    bench, ids = take_over(family, held=held), texts(6, 40)
    assert bench.step.compiled == (way == "compiled")
    wanted = [alone(bench, name, own) for name, own in zip(WHO, ids, strict=True)]
    spread = float(torch.stack(wanted).std())
    done = [0] * 6
    for sizes in ((30, 1, 7, 9, 30, 0), (0, 24, 1, 5, 1, 33), (1, 1, 1, 1, 1, 1), (1, 1, 20, 1, 1, 1)):
        decoding = [(WHO[i], i, done[i]) for i in range(6) if sizes[i] == 1]
        chunks = [(WHO[i], i, done[i], done[i] + sizes[i]) for i in range(6) if sizes[i] > 1]
        rows = torch.cat([ids[i, first : first + 1] for _, i, first in decoding]
                         + [ids[i, first:end] for _, i, first, end in chunks])  # fmt: skip
        order = [i for _, i, _ in decoding] + [i for _, i, *_ in chunks]
        last = torch.tensor([sizes[i] for i in order]).cumsum(0) - 1
        found = bench.run(decoding, chunks, rows, last.tolist())
        for i, logits in zip(order, found, strict=True):
            done[i] += sizes[i]
            worst = float((logits - wanted[i][done[i] - 1]).abs().max())
            assert worst < 2e-4 * spread, (family, WHO[i], done[i])


@in_both_forms
@pytest.mark.parametrize("family", ["llama, wide heads", "qwen 3", "mistral, window"])
@torch.inference_mode()
def test_bfloat16_stays_as_near_as_its_rounding_lets_it(family: str, way: str, held: str) -> None:
    bench, ids = take_over(family, torch.bfloat16, held), texts(1, 40)[0]
    for name in ("", "many"):
        wanted = alone(bench, name, ids)
        found = bench.run([], [(name, 0, 0, 40)], ids, range(40))
        assert float((found - wanted).std() / wanted.std()) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@in_both_forms
@pytest.mark.parametrize("family", ["llama, wide heads", "qwen 2, window above", "llama, more than a panel"])
@torch.inference_mode()
def test_a_row_is_the_same_to_the_last_bit_in_any_company(
    compiled: None, family: str, dtype: torch.dtype, held: str
) -> None:
    ids, threads = texts(6, 40), torch.get_num_threads()
    bench = take_over(family, dtype, held)
    lonely = []
    for name, own in zip(WHO, ids, strict=True):  # in slot 3, at once, then one token
        bench.run([], [(name, 3, 0, 39)], own[:39], [])
        lonely.append(bench.run([(name, 3, 39)], [], own[39:], [0])[0])
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            bench = take_over(family, dtype, held)
            slots = [5, 0, 3, 6, 1, 4]
            for first, end in ((0, 2), (2, 29), (29, 39)):
                chunks = [(WHO[i], slots[i], first, end) for i in range(6)]
                bench.run([], chunks, ids[:, first:end].flatten(), [])
            found = bench.run([(WHO[i], slots[i], 39) for i in range(6)], [], ids[:, 39], range(6))
            assert torch.equal(found, torch.stack(lonely))
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def test_a_beginning_held_once_is_read_for_all_who_share_it(way: str) -> None:
    bench, ids = take_over("llama, wide heads"), texts(4, 40)
    ids[:, :33] = ids[0, :33]
    for i in range(4):
        bench.run([], [("many", i, 0, 39)], ids[i, :39], [])
    apart = bench.run([("many", i, 39) for i in range(4)], [], ids[:, 39], range(4))
    for layer in range(3):
        bench.cache.keys[layer][1:, :, :33] = float("nan")
    together = bench.run([("many", i, 39) for i in range(4)], [], ids[:, 39], range(4), shared=33)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_numbers_that_overflow_reach_no_neighbour(way: str) -> None:
    bench, ids = take_over("llama, wide heads"), texts(3, 20)
    wild = make_adapter(bench.own, "many", 9)
    for a, _ in wild.layers.values():
        a.fill_(3e38)
    bench.bank.add("wild", wild)
    names = ["few", "wild", "few"]
    found = bench.run([], [(names[i], i, 0, 20) for i in range(3)], ids.flatten(), [19, 39, 59])
    assert found.isfinite().all(-1).tolist() == [True, False, True]
    again = bench.run([(names[i], i, 20) for i in range(3)], [], ids[:, 0], range(3))
    assert again.isfinite().all(-1).tolist() == [True, False, True]


@pytest.mark.parametrize("scheme", ["int8", "nf4"])
@torch.inference_mode()
def test_a_base_in_int8_is_taken_over_where_it_lies_and_one_in_nf4_is_not(way: str, scheme: Any) -> None:
    model = make_model(CONFIGS["llama 3 rotary, biases"])
    quantise_model(model, scheme)
    assert can_fuse(model) == (scheme == "int8")
    if scheme == "nf4":
        return
    ids, before = texts(1, 30), measure_footprint(model)
    wanted = model(input_ids=ids).logits
    step = FusedDecoder(model, SlotCache(model, 1, CONTEXT), AdapterBank(torch.float32, torch.device("cpu")))
    parts = [model.model.layers[1].self_attn.get_submodule(f"{name}_proj").weight.codes for name in "qkv"]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1  # the model's own are views
    assert (model(input_ids=ids).logits - wanted).abs().max() == 0
    assert (measure_footprint(model), step.compiled) == (before, way == "compiled")


@torch.inference_mode()
def test_an_adapter_that_is_gone_is_not_answered_with_anothers_weights(way: str) -> None:
    bench = take_over("llama, wide heads")
    bench.bank.remove("many")
    with pytest.raises(NotFound):
        bench.run([("many", 0, 0)], [], texts(1, 1)[0], [0])
    assert bench.bank.digests() == ["dora", "few", "head"]
