"""GRPO through TRL: a few steps on a tiny base, graded by metrics; what is written, and how a cut run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from espalier.core.errors import Conflict, Interrupted, InvalidInput, MissingExtra
from espalier.core.events import Event, ignore
from espalier.core.types import Example, Generation, Message, SamplingSpec, Usage
from espalier.nn.adapters import read_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.store.examples import write_examples
from espalier.train.corpus import Source
from espalier.train.job import Job, TrainResult
from espalier.train.methods.grpo import METHOD
from espalier.train.reinforcement.spec import GraderSpec, GrpoSpec
from espalier.train.runner import run

pytest.importorskip("trl", reason="the extra `rl` is not installed")

QUICK: dict[str, Any] = {
    "graders": [{"name": "regex", "options": {"pattern": "e"}}],
    "lora": {"rank": 4},
    "lr": 1e-2,
    "steps": 2,
    "generations": 4,
    "prompts_per_step": 2,
    "max_completion_tokens": 6,
    "checkpoint_every_steps": 1,
    "warmup_steps": 0,
}
Reinforce = Callable[..., TrainResult]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [
        Example(f"q{n}", [Message("user", f"Say {n}"), Message("assistant", "fox e")], tags={"n": str(n)})
        for n in range(6)
    ]
    write_examples(tmp_path / "questions" / "data" / "train-00000.parquet", rows)
    return tmp_path / "questions"


@pytest.fixture
def reinforce(tiny_base: Path, questions: Path, tmp_path: Path) -> Reinforce:
    def call(name: str = "a", emit: Callable[[Event], None] = ignore, open_model: Any = None, **changes: Any) -> Any:
        spec = GrpoSpec.model_validate(QUICK | {"base": f"path:{tiny_base}"} | changes)
        job = Job(
            method="grpo", spec=spec, sources=(Source("", questions),), out_dir=tmp_path / name,
            checkpoint_dir=tmp_path / f"{name}-state", cache_dir=tmp_path / "cache", dataset="d" * 64,
        )  # fmt: skip
        return METHOD.run(job, emit, open_model) if METHOD.run else run(job, emit)

    return call


def test_steps_are_told_and_the_adapter_is_a_peft_folder_that_names_its_base(
    reinforce: Reinforce, tiny_base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Event] = []
    result = reinforce(emit=seen.append)
    steps = [event.data for event in seen if event.kind == "train.step"]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(0 <= step["reward/regex"] <= 1 for step in steps)
    assert result.progress.step == 2 and result.progress.tokens > 0
    assert capfd.readouterr().out == ""  # TRL prints nothing

    base = load_base(f"path:{tiny_base}")
    weights = read_adapter(tmp_path / "a", base)
    assert weights.origin["dataset"] == "d" * 64
    assert any(b.abs().max() > 0 for _, b in weights.layers.values())  # it moved
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "a")
    assert theirs.peft_config["default"].r == 4


def test_two_undisturbed_runs_agree(reinforce: Reinforce, tmp_path: Path) -> None:
    for name in "ab":
        reinforce(name)
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_graders_see_the_case_and_count_by_their_weights(reinforce: Reinforce, tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    file.write_text(
        "def known(answer, case):\n"
        "    assert case['reference'] == 'fox e' and case['question'][0]['content'] == f\"Say {case['tags']['n']}\"\n"
        "    return 0.5\n"
    )
    seen: list[Event] = []
    graders = [
        {"name": "python", "options": {"function": f"{file}:known"}, "weight": 4.0},
        {"name": "regex", "options": {"pattern": ""}, "weight": 0.25},
    ]
    reinforce(emit=seen.append, graders=graders, steps=1)
    (step,) = [event.data for event in seen if event.kind == "train.step"]
    assert step["reward"] == pytest.approx(4 * 0.5 + 0.25)


def test_a_judge_is_asked_through_what_the_recipe_names(reinforce: Reinforce) -> None:
    opened: list[Mapping[str, Any]] = []

    def answer(batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
        usage = Usage(prompt_tokens=1, completion_tokens=1)
        return [Generation(text='{"score": 3}', finish_reason="stop", usage=usage) for _ in batch]

    @contextmanager
    def open_model(options: Mapping[str, Any]) -> Iterator[Any]:
        opened.append(options)
        yield answer

    seen: list[Event] = []
    judge = {"name": "judge", "options": {"rubric": "It is kind.", "model": {"base": "builtin:seedling"}}}
    reinforce(emit=seen.append, open_model=open_model, graders=[judge], steps=1)
    assert opened == [{"base": "builtin:seedling"}]
    (step,) = [event.data for event in seen if event.kind == "train.step"]
    assert step["reward"] == pytest.approx(0.5)
    with pytest.raises(InvalidInput, match="judge cannot be asked here"):
        reinforce("b", graders=[judge])


def test_a_run_cut_short_goes_on_from_its_last_checkpoint(reinforce: Reinforce, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 2:
            raise Cut

    with pytest.raises(Cut):
        reinforce(emit=cut, steps=3)
    kept = load_file(max((tmp_path / "a-state").glob("checkpoint-*")) / "learnt.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in kept.items() if "lora_B" in name)
    seen: list[Event] = []
    assert reinforce(emit=seen.append, steps=3).progress.step == 3
    assert [event.data["step"] for event in seen if event.kind == "train.resumed"] == [1]
    assert [event.data["step"] for event in seen if event.kind == "train.step"] == [2, 3]
    with pytest.raises(Conflict, match="belong to another run"):
        reinforce(steps=3, lr=1e-3)


def test_a_run_that_is_interrupted_keeps_the_step_it_has_done(reinforce: Reinforce, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 2:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        reinforce(emit=stop, steps=3, checkpoint_every_steps=100)
    assert (tmp_path / "a-state" / "checkpoint-2" / "learnt.safetensors").is_file()


def test_the_kl_is_to_what_the_run_began_with(reinforce: Reinforce) -> None:
    seen: list[Event] = []
    reinforce(emit=seen.append, beta=0.1, steps=2, lr=0.05)
    first, second = [event.data["kl"] for event in seen if event.kind == "train.step"]
    assert first == pytest.approx(0, abs=1e-6)
    assert second > 1e-6


def test_a_grader_that_fails_stops_the_run_with_its_line(reinforce: Reinforce, tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("def wrong(answer, case):\n    return case['score']\n")
    with pytest.raises(InvalidInput, match=r"rewards.py:2.*KeyError"):
        reinforce(graders=[{"name": "python", "options": {"function": f"{tmp_path / 'rewards.py'}:wrong"}}])


def test_prompts_without_room_for_an_answer_are_refused(reinforce: Reinforce) -> None:
    with pytest.raises(InvalidInput, match="none of 6 prompts leaves room for 60 tokens"):
        reinforce(context_tokens=64, max_completion_tokens=60)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keep_best": True}, "keep_best: TRL's loop"),
        ({"tune": "full"}, "tune: TRL's loop"),
        ({"mix": {"other": 0.5}}, "mix: TRL's loop"),
        ({"schedule": "wsd"}, "cosine, linear and constant"),
        ({"lora": LoraSpec(dropout=0.1)}, "without dropout"),
        ({"graders": ()}, "name at least one"),
    ],
)
def test_what_trls_loop_does_not_honour_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        GrpoSpec.model_validate({"graders": (GraderSpec(name="exact_match"),)} | changes)


def test_without_trl_the_way_to_it_is_said(reinforce: Reinforce, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(MissingExtra, match=r"espalier\[rl\]"):
        reinforce()
