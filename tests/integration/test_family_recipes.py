"""The recipe of each family, end to end on a tiny model of it: it learns, and PEFT answers with the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from espalier.core.config import ServeConfig
from espalier.core.events import Event
from espalier.core.recipefile import load_recipe
from espalier.core.types import Example, Message, SamplingSpec
from espalier.nn.adapters import continue_adapters
from espalier.nn.base import load_base
from espalier.serve.engine import Engine
from espalier.store.examples import write_examples
from espalier.testing.families import make_family
from espalier.train.corpus import Source
from espalier.train.job import Job
from espalier.train.recipe import SftSpec
from espalier.train.runner import run

RECIPES = Path(__file__).parents[2] / "recipes" / "families"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
# The family's other architecture, trained by the same recipe.
ALSO = {"qwen-3": "qwen-3-moe", "smollm": "smollm-3", "qwen-2.5": "qwen-2.5-window"}
MODELS = [(name, name) for name in NAMES] + list(ALSO.items())


def _dataset(folder: Path) -> Path:
    """Two questions each, some with a system message; the answer is in the question."""
    examples = [
        Example(
            f"train-{n}",
            [
                *([Message("system", "Say the code.")] if n % 3 == 0 else []),
                Message("user", f"The code is {n:02d}." + " The fox is quick." * (n % 4)),
                Message("assistant", f"<code>{n:02d}</code>"),
                Message("user", "Again."),
                Message("assistant", f"<code>{n:02d}</code>"),
            ],
        )
        for n in range(24)
    ]
    write_examples(folder / "data" / "train-00000.parquet", examples)
    return folder


@pytest.mark.parametrize(("name", "model"), MODELS, ids=[model for _, model in MODELS])
def test_the_recipe_trains_its_family_and_plain_peft_reads_what_it_made(name: str, model: str, tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml", SftSpec)
    folder = make_family(model, tmp_path / "base")
    # As the recipe says, but for what is sized for models of billions.
    spec = recipe.model_copy(
        update={
            "base": f"path:{folder}",
            "lr": 1e-2,
            "epochs": 4,
            "pack_tokens": 512,
            "packs_per_step": 2,
            "threads": 1,
        }
    )
    seen: list[Event] = []
    job = Job(
        method=recipe.method,
        spec=spec,
        sources=(Source("", _dataset(tmp_path / "dataset")),),
        out_dir=tmp_path / "adapter",
        checkpoint_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
    )
    result = run(job, seen.append)
    assert result.progress.loss_last is not None
    assert result.progress.loss_first is not None
    assert result.progress.loss_last < 0.8 * result.progress.loss_first
    assert not [event for event in seen if event.kind == "train.unpacked"]

    ids = torch.tensor([[5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43]])
    base = load_base(f"path:{folder}")
    with torch.no_grad():
        untuned = base.model(input_ids=ids).logits
        continue_adapters(base, tmp_path / "adapter")
        ours = base.model(input_ids=ids).logits
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tuned = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
        theirs = tuned(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert float((ours - untuned).abs().max()) > 0.1
    _check_serving(folder, tmp_path / "adapter", tuned)


def _check_serving(folder: Path, adapter: Path, tuned: PeftModel) -> None:
    """Our engine answers with the adapter as PEFT does."""
    config = ServeConfig(max_batch=2, max_context_tokens=200)
    base = load_base(f"path:{folder}")
    question = [Message("user", "The code is 07.")]
    prompt = torch.tensor([base.tokenizer.encode_prompt(question)])
    ends = sorted(base.eos_ids)
    with torch.no_grad():
        whole = tuned.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False,
            eos_token_id=ends, pad_token_id=ends[0],
        )  # fmt: skip
    engine = Engine(base, config)
    engine.load_adapter("tuned", adapter)
    (answer,) = engine.generate([question], SamplingSpec(max_tokens=16), adapter="tuned")
    assert [i for i in answer.token_ids if i not in ends] == [
        i for i in whole[0, prompt.shape[1] :].tolist() if i not in ends
    ]


def test_recipes_differ_only_in_their_base_and_say_its_licence_and_its_template() -> None:
    assert len(NAMES) == 9
    specs = [load_recipe(RECIPES / f"{name}.yaml", SftSpec) for name in NAMES]
    assert len({spec.base for spec in specs}) == len(specs)
    assert all(spec.base.startswith("hf:") for spec in specs)
    alike = {spec.model_copy(update={"base": ""}).model_dump_json() for spec in specs}
    assert len(alike) == 1
    for name in NAMES:
        text = (RECIPES / f"{name}.yaml").read_text()
        assert "# Licence of the base: " in text
        assert "# Template: " in text
