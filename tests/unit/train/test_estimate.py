"""The estimate: exact where it counts, near what is measured where it cannot, and helpful when it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.events import ignore
from espalier.nn.base import load_base
from espalier.nn.freezing import FreezeSpec
from espalier.nn.lora import LoraSpec
from espalier.train.corpus import Source
from espalier.train.estimate import Workload, check_fit, estimate, read_figures
from espalier.train.footprint import BaseFigures, Machine, count_trained, measure_footprint
from espalier.train.job import Job
from espalier.train.recipe import SftSpec
from espalier.train.rehearsal import audit_job, estimate_job, measure_workload
from espalier.train.runner import make_ready
from espalier.train.tuning import tune

CPU = Machine("cpu", 2, 16_000_000_000, 2)


def big() -> BaseFigures:
    """A Llama 8B."""
    layer = {
        "self_attn.q_proj": (4096, 4096),
        "self_attn.k_proj": (1024, 4096),
        "self_attn.v_proj": (1024, 4096),
        "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (14336, 4096),
        "mlp.up_proj": (14336, 4096),
        "mlp.down_proj": (4096, 14336),
    }
    tensors: dict[str, tuple[int, ...]] = {
        f"model.layers.{n}.{name}.weight": shape for n in range(32) for name, shape in layer.items()
    }
    tensors |= {"model.embed_tokens.weight": (128256, 4096), "lm_head.weight": (128256, 4096)}
    return BaseFigures(tensors, 4096, 32, 32, 8, 128, 14336, 128256, lean=True)


@pytest.mark.parametrize(
    "spec",
    [
        SftSpec(),
        SftSpec(lora=LoraSpec(rank=4, targets=("q_proj", "down_proj"))),
        SftSpec(lora=LoraSpec(rank=4, ranks={"q_proj": 9}, layers=1)),
        SftSpec(lora=LoraSpec(rank=4, dora=True)),
        SftSpec(tune="full"),
        SftSpec(tune="full", freeze=FreezeSpec(layers_below=1)),
        SftSpec(tune="full", freeze=FreezeSpec(names=("*.mlp.*",))),
    ],
    ids=lambda spec: f"{spec.tune}-{len(spec.model_dump_json())}",
)
def test_the_parameters_counted_from_file_headers_are_those_that_learn(tiny_base: Path, spec: SftSpec) -> None:
    tuned = tune(spec, load_base(f"path:{tiny_base}", dtype="float32"))
    figures = read_figures(tiny_base)
    assert count_trained(spec, figures) == tuned.trained
    assert figures.parameters == tuned.total - (tuned.trained if spec.tune == "lora" else 0)


def test_an_8b_base_counts_eight_billion_and_a_lora_of_it_forty_two_million() -> None:
    assert big().parameters == pytest.approx(8.03e9, rel=1e-3)
    assert count_trained(SftSpec(), big()) == 41_943_040  # as peft's print_trainable_parameters says for r=16


def test_the_size_up_to_which_a_base_is_held_in_float32_is_the_loaders() -> None:
    from espalier.nn.base import EXACT_BELOW_PARAMETERS
    from espalier.train.footprint import EXACT_BELOW

    assert EXACT_BELOW == EXACT_BELOW_PARAMETERS


@settings(max_examples=12)
@given(
    pack=st.sampled_from([256, 1024, 4096]),
    packs=st.integers(1, 4),
    rank=st.integers(1, 64),
    full=st.booleans(),
    checkpointing=st.booleans(),
)
def test_more_of_anything_never_takes_less(pack: int, packs: int, rank: int, full: bool, checkpointing: bool) -> None:
    spec = SftSpec(
        pack_tokens=pack,
        packs_per_step=packs,
        lora=LoraSpec(rank=rank),
        tune="full" if full else "lora",
        checkpointing=checkpointing,
    )
    now = measure_footprint(spec, big(), CPU).peak_bytes
    for more in ({"pack_tokens": 2 * pack}, {"packs_per_step": packs + 1}, {"lora": LoraSpec(rank=rank + 8)}):
        assert measure_footprint(spec.model_copy(update=more), big(), CPU).peak_bytes >= now
    assert measure_footprint(spec, big(), CPU, longest_tokens=5000).peak_bytes >= now
    assert measure_footprint(spec, big(), replace(CPU, cores=4)).peak_bytes >= now


def test_what_cannot_fit_is_refused_with_what_would_and_its_figure() -> None:
    tight = Machine("cuda", 1, 24_000_000_000, 2)
    with pytest.raises(InvalidInput, match=r"needs about \d+\.\d GB of memory and 24\.0 GB are free") as caught:
        check_fit(SftSpec(tune="full"), big(), tight)
    ways = caught.value.hint.removeprefix("what fits: ").split("; ")
    figure = re.fullmatch(r"tune: lora \((\d+\.\d) GB\)", ways[0])
    assert figure and 18 < float(figure[1]) < 24  # 16 GB of weights, and what an adapter takes
    assert ways[1].startswith("tune: lora, quantise: nf4 (")
    check_fit(SftSpec(quantise="nf4"), big(), tight)


def test_where_nothing_fits_the_nearest_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_fit(SftSpec(), big(), Machine("cpu", 2, 1_000_000_000, 2))
    assert caught.value.hint.startswith("nothing here fits alone; nearest: ")


def test_time_and_cost_follow_from_the_rate_and_each_figure_says_what_it_assumes() -> None:
    found = estimate(SftSpec(usd_per_hour=3.0), big(), CPU, Workload(tokens=7_200_000, steps=100), tokens_per_s=1000)
    assert (found.wall_s, found.cost_usd) == (7200.0, 6.0)
    assert all(any(line.startswith(f"{item.name}:") for line in found.assumptions) for item in found.footprint.items)
    unknown = estimate(SftSpec(usd_per_hour=3.0), big(), CPU, Workload(tokens=1))
    assert unknown.wall_s is None and unknown.cost_usd is None


@pytest.fixture
def job(tiny_base: Path, dataset: Path, tmp_path: Path) -> Callable[..., Job]:
    def make(**spec: Any) -> Job:
        filled = SftSpec(base=f"path:{tiny_base}", pack_tokens=256, **spec)
        return Job("sft", filled, (Source("", dataset),), tmp_path / "out", tmp_path / "state", tmp_path / "cache")

    return make


def test_the_workload_is_what_the_plan_then_does(job: Callable[..., Job]) -> None:
    from espalier.train.runner import run

    asked = job(epochs=3)
    told = measure_workload(make_ready(asked, ignore))
    done = run(asked, ignore).progress
    assert (told.tokens, told.steps) == (done.tokens, done.step)


def test_a_rehearsal_audits_and_estimates_and_writes_no_weights(job: Callable[..., Job], tmp_path: Path) -> None:
    assert audit_job(job(), ignore).examples == 40
    found = estimate_job(job(), ignore)
    assert found.fits and found.tokens_per_s is not None and found.tokens_per_s > 0
    assert estimate_job(job(), ignore, tokens_per_s=5.0).tokens_per_s == 5.0
    assert not (tmp_path / "out").exists()


_MEASURE = """
import json, sys
from pathlib import Path
from espalier.core.events import ignore
from espalier.train.corpus import Source
from espalier.train.progress import peak_memory_bytes
from espalier.train.recipe import SftSpec
from espalier.train.job import Job
from espalier.train.runner import run

base, dataset, folder, spec = sys.argv[1:]
spec = SftSpec(base=f"path:{base}", steps=1, validation_examples=0, **json.loads(spec))
run(Job("sft", spec, (Source("", Path(dataset)),), Path(folder) / "o", Path(folder) / "s", Path(folder) / "c"), ignore)
print(peak_memory_bytes())
"""


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"threads": 1}, {"threads": 1, "tune": "full"}], ids=["lora", "full"])
def test_the_peak_is_within_a_quarter_of_what_is_measured(tmp_path: Path, fields: dict[str, Any]) -> None:
    import torch

    from espalier.core.types import Example
    from espalier.store.examples import write_examples
    from espalier.testing.tiny import make_tiny_base
    from espalier.train.machine import compute_dtype

    if torch.cuda.is_available():
        pytest.skip("measured on a CPU")
    base = _widen(make_tiny_base(tmp_path / "base", context_tokens=2048))
    text = "the quick brown fox " * 60
    write_examples(tmp_path / "d" / "data" / "train-00000.parquet", [Example(str(n), text=text) for n in range(8)])
    fields = {**fields, "pack_tokens": 1024, "packs_per_step": 1}
    given = [str(base), str(tmp_path / "d"), str(tmp_path), json.dumps(fields)]
    done = subprocess.run([sys.executable, "-c", _MEASURE, *given], capture_output=True, text=True, check=True)
    measured = int(done.stdout.split()[-1])
    machine = Machine("cpu", 1, 1 << 60, compute_dtype(torch.device("cpu")).itemsize)
    told = measure_footprint(SftSpec(**fields), read_figures(base), machine)
    assert told.peak_bytes == pytest.approx(measured, rel=0.25)


def _widen(folder: Path) -> Path:
    """The same tokenizer over a base of 27M parameters, whose activations weigh more than the libraries."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.update(
        {
            "vocab_size": 8192,
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 64,
        }
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder
