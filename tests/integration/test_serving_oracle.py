"""The permanent oracle of serving: whatever shares a batch, each request is answered as `peft.generate` answers alone.

Ten adapters unlike each other (ranks, strengths, targets, layers, rsLoRA, DoRA, one on the head) and the base, float32
and greedy, on a tiny random model of each family: in several orders and batch sizes, prompts in chunks, beginnings
taken from the cache, neighbours that are cancelled, adapters that come and go. The control: a wrong adapter is seen.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import peft
import pytest
import torch

from espalier.core.config import ServeConfig
from espalier.core.errors import Conflict, NotFound
from espalier.core.ports import ChatRequest
from espalier.core.types import Generation, Message, SamplingSpec
from espalier.nn.adapters import AdapterWeights, attach_adapters, save_adapter
from espalier.nn.base import load_base
from espalier.nn.lora import LoraSpec
from espalier.nn.mixed import AdapterBank
from espalier.serve.engine import Engine
from espalier.serve.scheduler import Scheduler
from espalier.serve.work import Work
from espalier.testing.families import make_family

# peft and transformers about each other, and about tiny models with tied heads.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

FAMILIES = ("llama-3", "qwen-2.5", "qwen-3", "gemma-2", "gemma-3", "mistral", "qwen-3-moe")
ADAPTERS = {
    "plain": LoraSpec(rank=4, alpha=8),
    "rslora": LoraSpec(rank=16, alpha=7, rslora=True),
    "two targets": LoraSpec(rank=3, alpha=9, targets=("q_proj", "v_proj")),
    "dora": LoraSpec(rank=4, alpha=8, dora=True),
    "patterns": LoraSpec(rank=4, alpha=8, ranks={"q_proj": 9, "v_proj": 2}, alphas={"o_proj": 16}),
    "first layer": LoraSpec(rank=6, alpha=18, layers=(0, 0)),
    "narrow": LoraSpec(rank=1, alpha=4),
    "output": LoraSpec(rank=12, alpha=24, targets=("o_proj", "k_proj")),
    "dora patterns": LoraSpec(rank=5, alpha=5, dora=True, rslora=True, ranks={"model.layers.0.self_attn.k_proj": 2}),
    "head": LoraSpec(rank=7, alpha=7, targets=("lm_head", "q_proj")),
}
OPENING = "Answer each ticket as one record and keep to the schema. "  # longer than the shortest beginning looked up
TEXTS = (OPENING + "The lazy dog is on fire.", OPENING + "Größe 0123?")
CASES = [(name, text) for text in TEXTS for name in ("", *ADAPTERS)]
GREEDY = SamplingSpec(max_tokens=7)
Case = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Shape:
    """A family's base and adapters on disk, and what PEFT answers."""

    base: Path
    adapters: dict[str, Path]
    expected: dict[Case, tuple[int, ...]]

    def engine(self, adapters: dict[str, Path] | None = None, **config: int) -> Engine:
        engine = Engine(load_base(f"path:{self.base}"), ServeConfig(max_context_tokens=160, **config))
        for name, folder in (self.adapters if adapters is None else adapters).items():
            engine.load_adapter(name, folder)
        return engine


@pytest.fixture(scope="module", params=FAMILIES)
def shape(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shape:
    folder = make_family(request.param, tmp_path_factory.mktemp("base"))
    adapters = {}
    for number, (name, spec) in enumerate(ADAPTERS.items()):
        base = load_base(f"path:{folder}")
        attached = attach_adapters(base.model, spec, seed=number)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in attached.parameters():
                parameter += torch.randn(parameter.shape, generator=generator) * 0.4
        adapters[name] = tmp_path_factory.mktemp("adapter")
        save_adapter(adapters[name], attached, base)
    return Shape(folder, adapters, _ask_peft(folder, adapters))


def _ask_peft(folder: Path, adapters: dict[str, Path]) -> dict[Case, tuple[int, ...]]:
    base = load_base(f"path:{folder}")
    first = next(iter(adapters))
    model = peft.PeftModel.from_pretrained(base.model, adapters[first], adapter_name=first).eval()
    for name in adapters:
        if name != first:
            model.load_adapter(adapters[name], adapter_name=name)
    found = {}
    for name, text in CASES:
        ids = torch.tensor([base.tokenizer.encode_prompt([Message("user", text)])])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False}
        given |= {"max_new_tokens": GREEDY.max_tokens, "eos_token_id": sorted(base.eos_ids)}
        with torch.inference_mode():
            if name:
                model.set_adapter(name)
                out = model.generate(**given)
            else:
                with model.disable_adapter():
                    out = model.generate(**given)
        found[name, text] = tuple(out[0, ids.shape[1] :].tolist())
    for text in TEXTS:
        assert len({found[name, text] for name in ("", *ADAPTERS)}) == len(ADAPTERS) + 1, "a mix-up could go unseen"
    return found


def answer_together(engine: Engine, cases: Sequence[Case]) -> list[Generation]:
    """All in flight at once: each asks from a thread of its own, and no step is run until everybody has asked."""
    answers: dict[int, Generation] = {}

    def ask(i: int, name: str, text: str) -> None:
        answers[i] = engine.generate([[Message("user", text)]], GREEDY, name)[0]

    threads = [threading.Thread(target=ask, args=(i, *case)) for i, case in enumerate(cases)]
    with engine._turn:
        engine.start()
        for count, thread in enumerate(threads, 1):
            thread.start()
            while len(engine._tickets) < count:
                thread.join(0.001)
    for thread in threads:
        thread.join()
    engine.stop()
    return [answers[i] for i in range(len(cases))]


@dataclass(slots=True)
class Watch:
    """What the engines of a test did."""

    in_one_step: list[int]  # how many different adapters, the base counted, each step computed
    works: list[Work]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    seen = Watch([], [])
    select, add = AdapterBank.select, Scheduler.add

    def watched_select(bank: AdapterBank, rows: Sequence[tuple[str, int]]) -> None:
        seen.in_one_step.append(len({digest for digest, _ in rows}))
        select(bank, rows)

    def watched_add(scheduler: Scheduler, work: Work, **how: bool) -> None:
        seen.works.append(work)
        add(scheduler, work, **how)

    monkeypatch.setattr(AdapterBank, "select", watched_select)
    monkeypatch.setattr(Scheduler, "add", watched_add)
    return seen


def test_ten_unlike_adapters_and_the_base_in_one_batch_are_answered_as_peft_answers_each_alone(
    shape: Shape, watch: Watch
) -> None:
    wide = shape.engine(max_batch=32)
    narrow = shape.engine(max_batch=3, step_budget_tokens=16)  # three at a time, prompts in chunks of at most 16
    shuffled = random.Random(1).sample(CASES, len(CASES))
    for engine, orders in ((wide, (CASES, shuffled)), (narrow, (shuffled[::-1],))):
        for order in orders:
            answers = answer_together(engine, order)
            assert [answer.token_ids for answer in answers] == [shape.expected[case] for case in order]
    assert max(watch.in_one_step) == len(ADAPTERS) + 1
    # Once more, one by one: the slots still hold the beginnings of nearly all prompts, each under its own adapter.
    again = [wide.generate([[Message("user", text)]], GREEDY, name)[0] for name, text in CASES]
    assert [answer.token_ids for answer in again] == [shape.expected[case] for case in CASES]
    assert sum(work.cached > 16 for work in watch.works[-len(CASES) :]) >= len(CASES) - 4


def test_neighbours_that_are_cancelled_change_no_answer(shape: Shape) -> None:
    engine = shape.engine(max_batch=6, step_budget_tokens=24).start()

    async def leave(name: str, text: str, after: int) -> None:
        request = ChatRequest(f"{name} leaves", "", name, [Message("user", text)], SamplingSpec(max_tokens=50))
        stream = engine.stream(request)
        for _ in range(after):
            await anext(stream, None)
        await stream.aclose()  # type: ignore[attr-defined]

    async def stay(name: str, text: str) -> tuple[Case, tuple[int, ...]]:
        found = await asyncio.to_thread(engine.generate, [[Message("user", text)]], GREEDY, name)
        return (name, text), found[0].token_ids

    async def main() -> list[tuple[Case, tuple[int, ...]] | None]:
        order = random.Random(2)
        work = [stay(*case) for case in CASES[::2]] + [leave(*case, order.randrange(3)) for case in CASES[1::2]]
        order.shuffle(work)
        return await asyncio.gather(*work)

    stayed = [found for found in asyncio.run(main()) if found is not None]
    engine.stop()
    assert len(stayed) == len(CASES[::2])
    assert dict(stayed) == {case: shape.expected[case] for case in CASES[::2]}


def test_adapters_come_and_go_under_load_and_every_answer_is_its_own_adapters(shape: Shape) -> None:
    engine = shape.engine(max_batch=4, step_budget_tokens=24).start()
    wrong: list[Case] = []
    turned_away = threading.Event()
    unloaded = 0

    def ask(number: int) -> None:
        cases = random.Random(number).sample(CASES, 8)
        for turn in itertools.count():
            if turn >= len(cases) and unloaded > 3 and turned_away.is_set():
                return
            case = cases[turn % len(cases)]
            while True:
                try:
                    found = engine.generate([[Message("user", case[1])]], GREEDY, case[0])[0]
                except (Conflict, NotFound):
                    turned_away.set()
                    engine.load_adapter(case[0], shape.adapters[case[0]])
                    continue
                if found.token_ids != shape.expected[case]:
                    wrong.append(case)
                break

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in asking:
        thread.start()
    order = random.Random(3)
    while any(thread.is_alive() for thread in asking):
        try:
            engine.unload_adapter(order.choice(list(ADAPTERS)))
            unloaded += 1
        except (Conflict, NotFound):
            asking[0].join(0.001)
    engine.stop()
    assert wrong == []


def test_another_adapter_under_a_name_that_was_let_go_is_answered_as_itself(shape: Shape) -> None:
    engine = shape.engine({"x": shape.adapters["plain"]}, max_batch=2)
    for name in ("plain", "dora", "two targets"):
        for text in TEXTS:
            found = engine.generate([[Message("user", text)]], GREEDY, "x")[0]
            assert found.token_ids == shape.expected[name, text]
        engine.unload_adapter("x")
        following = {"plain": "dora", "dora": "two targets"}.get(name)
        if following:
            engine.load_adapter("x", shape.adapters[following])


@pytest.mark.parametrize("one, other", [("plain", "narrow"), ("dora", "dora patterns"), ("head", "rslora")])
def test_the_control_a_wrong_adapter_is_seen(shape: Shape, one: str, other: str) -> None:
    swapped = {**shape.adapters, one: shape.adapters[other], other: shape.adapters[one]}
    engine = shape.engine(swapped, max_batch=32)
    answers = answer_together(engine, CASES)
    wrong = {case for case, answer in zip(CASES, answers, strict=True) if answer.token_ids != shape.expected[case]}
    assert wrong == {case for case in CASES if case[0] in {one, other}}


def test_the_control_a_lost_scale_rank_or_gain_is_seen(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    add = AdapterBank.add
    losses: dict[str, Callable[[AdapterWeights], AdapterWeights]] = {
        "dora": lambda weights: replace(weights, gains={}),
        "rslora": lambda weights: replace(weights, layers={n: (a, b / 4) for n, (a, b) in weights.layers.items()}),
        "patterns": lambda weights: replace(
            weights, layers={n: (a[:2], b[:, :2]) for n, (a, b) in weights.layers.items()}
        ),
    }
    monkeypatch.setattr(AdapterBank, "add", lambda bank, name, weights: add(bank, name, losses[name](weights)))
    engine = shape.engine({name: shape.adapters[name] for name in losses}, max_batch=2)
    for name in losses:
        found = [engine.generate([[Message("user", text)]], GREEDY, name)[0].token_ids for text in TEXTS]
        assert found != [shape.expected[name, text] for text in TEXTS]
