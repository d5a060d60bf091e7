"""What a request may ask of its sampling, through the engine: seeds, several answers, log-probabilities, penalties."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from espalier.core.config import ServeConfig
from espalier.core.errors import InvalidInput, Unavailable
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import Message, SamplingSpec
from espalier.nn.base import LoadedBase
from espalier.serve.engine import Engine
from espalier.serve.scheduler import Plan

WARM: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "seed": 11}
LONG = "hello, is this a prompt that is worth copying?"


@pytest.fixture(scope="module")
def engine(tiny_folder: Path, adapter_folders: dict[str, Path]) -> Iterator[Engine]:
    from espalier.nn.base import load_base

    engine = Engine(load_base(f"path:{tiny_folder}"), ServeConfig(max_batch=4, max_context_tokens=300))
    engine.load_adapter("a", adapter_folders["a"])
    with_thread = engine.start()
    yield with_thread
    engine.stop()


def ask_for(text: str = LONG, adapter: str = "", **sampling: Any) -> ChatRequest:
    return ChatRequest("req", "", adapter, [Message("user", text)], SamplingSpec(**{"max_tokens": 20, **sampling}))


async def collect(engine: Engine, request: ChatRequest) -> list[Delta]:
    async with aclosing(cast(Any, engine.stream(request))) as deltas:
        return [delta async for delta in deltas]


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def texts_of(deltas: list[Delta]) -> list[str]:
    return ["".join(d.text for d in deltas if d.index == i) for i in range(1 + max(d.index for d in deltas))]


@pytest.mark.parametrize("adapter", ["", "a"])
def test_several_answers_are_the_same_for_the_same_seed_whoever_else_is_asking(engine: Engine, adapter: str) -> None:
    request = ask_for(adapter=adapter, n=3, **WARM, frequency_penalty=0.4, top_k=50)

    async def ask_both_ways() -> tuple[list[str], list[str]]:
        alone = await collect(engine, request)
        others = [collect(engine, ask_for(f"other {i}", "a", temperature=1.0, n=2, min_p=0.1)) for i in range(5)]
        together, *_ = await asyncio.gather(collect(engine, request), *others)
        return texts_of(alone), texts_of(together)

    alone, together = run(ask_both_ways())
    assert alone == together and len(set(alone)) == 3
    only = run(collect(engine, ask_for(adapter=adapter, **WARM, frequency_penalty=0.4, top_k=50)))
    assert texts_of(only) == alone[:1], "the first of several is the answer of a request for one"


def test_several_greedy_answers_are_one(engine: Engine) -> None:
    assert len(set(texts_of(run(collect(engine, ask_for(n=4)))))) == 1


def test_the_prompt_of_several_answers_is_computed_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    computed, run_step = [], engine._runner.run

    def count(plan: Plan) -> Any:
        computed.append(sum(chunk.end - chunk.start for chunk in plan.chunks))
        return run_step(plan)

    monkeypatch.setattr(engine._runner, "run", count)
    request = ask_for("what nobody has asked before, and long enough", n=4, **WARM)
    prompt_tokens = engine.count_prompt_tokens(request)
    deltas = run(collect(engine, request))
    written = sum(len(ids) for ids in texts_of(deltas))
    usage = deltas[-1].usage
    assert usage is not None and usage.prompt_tokens == prompt_tokens
    # Of the prompt, the other three compute the one token that nobody else's answer can be read from.
    assert sum(computed) <= prompt_tokens + 3 + usage.completion_tokens
    assert written > 0 and [d.finish_reason for d in deltas if d.finish_reason] == ["length"] * 4


def test_the_last_delta_tells_the_usage_of_all_and_every_answer_s_last_its_adapter(engine: Engine) -> None:
    deltas = run(collect(engine, ask_for(adapter="a", n=3, **WARM)))
    lasts = [delta for delta in deltas if delta.finish_reason]
    assert sorted(delta.index for delta in lasts) == [0, 1, 2] and {delta.adapter for delta in lasts} == {"a"}
    assert deltas[-1].usage is not None and deltas[-1].usage.completion_tokens == 60


def test_leaving_several_answers_frees_all_their_slots(engine: Engine) -> None:
    async def leave() -> None:
        async with aclosing(cast(Any, engine.stream(ask_for(n=6, max_tokens=200, **WARM)))) as deltas:
            await anext(deltas)

    run(leave())
    with engine._change:
        assert engine._change.wait_for(lambda: not engine._scheduler.busy, timeout=20)
    assert not engine._tickets


def test_a_seed_repeats_also_what_is_asked_in_a_batch(engine: Engine) -> None:
    questions = [[Message("user", text)] for text in ("one", "two", "one")]
    sampling = SamplingSpec(max_tokens=10, **WARM, presence_penalty=0.5)
    first, again = engine.generate(questions, sampling), engine.generate(questions, sampling)
    assert [answer.text for answer in first] == [answer.text for answer in again]
    assert first[0].text != first[2].text, "each conversation of a batch draws from a stream of its own"


def test_log_probabilities_are_those_of_transformers_for_each_token_told(
    engine: Engine, load_tiny: Callable[[], LoadedBase]
) -> None:
    request = ask_for("Größe?", logprobs=3, temperature=1.3, seed=2, repetition_penalty=1.4, max_tokens=24)
    deltas = run(collect(engine, request))
    told = [token for delta in deltas for token in delta.logprobs]
    base = load_tiny()
    prompt = base.tokenizer.encode_prompt(request.messages)
    ids = torch.tensor([prompt + [token.id for token in told]])
    with torch.inference_mode():
        expected = base.model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    assert len(told) == 24
    for place, token in enumerate(told):
        assert token.logprob == pytest.approx(float(expected[place, token.id]), abs=1e-4)
        assert [top.id for top in token.top] == expected[place].topk(3).indices.tolist()
        assert [top.logprob for top in token.top] == pytest.approx(expected[place].topk(3).values.tolist(), abs=1e-4)
    assert b"".join(token.text for token in told).decode(errors="replace") == texts_of(deltas)[0]


def test_log_probabilities_end_where_a_stop_string_cuts_the_text(engine: Engine) -> None:
    whole = run(collect(engine, ask_for(max_tokens=40)))
    text = texts_of(whole)[0]
    stop = text[15:17]
    deltas = run(collect(engine, ask_for(max_tokens=40, logprobs=0, stop=(stop,))))
    told = b"".join(token.text for delta in deltas for token in delta.logprobs).decode(errors="replace")
    shown = texts_of(deltas)[0]
    assert shown == text[: text.index(stop)]
    assert told.startswith(shown) and len(told) - len(shown) < len(stop) + 8, "at most the token the cut runs through"
    assert engine.generate([[Message("user", LONG)]], SamplingSpec(max_tokens=5, logprobs=1))[0].logprobs


def test_penalties_keep_an_answer_from_repeating_itself(engine: Engine) -> None:
    def most(**sampling: Any) -> int:
        deltas = run(collect(engine, ask_for(max_tokens=60, logprobs=0, **sampling)))
        return max(Counter(token.id for delta in deltas for token in delta.logprobs).values())

    assert most(frequency_penalty=2.0, presence_penalty=2.0) < most()


def test_a_bias_forces_and_bans_tokens(engine: Engine) -> None:
    plain = engine.generate([[Message("user", LONG)]], SamplingSpec(max_tokens=6))[0]
    first = plain.token_ids[0]
    banned = engine.generate([[Message("user", LONG)]], SamplingSpec(max_tokens=6, logit_bias=((first, -100.0),)))[0]
    forced = engine.generate([[Message("user", LONG)]], SamplingSpec(max_tokens=6, logit_bias=((70, 100.0),)))[0]
    assert first not in banned.token_ids
    assert set(forced.token_ids) == {70}


def test_an_answer_goes_on_past_its_end_where_it_is_told_to(
    load_tiny: Callable[[], LoadedBase],
) -> None:
    plain = Engine(load_tiny()).generate([[Message("user", "hello")]], SamplingSpec(max_tokens=20))[0]
    object.__setattr__(base := load_tiny(), "eos_ids", frozenset({plain.token_ids[4]}))
    engine = Engine(base)
    ended, on = (
        engine.generate([[Message("user", "hello")]], SamplingSpec(max_tokens=20, ignore_end=ignore))[0]
        for ignore in (False, True)
    )
    assert ended.finish_reason == "stop" and len(ended.token_ids) < 20
    assert (on.finish_reason, on.token_ids) == ("length", plain.token_ids)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"min_p": 1.5}, {"presence_penalty": 3.0},
        {"frequency_penalty": -2.5}, {"repetition_penalty": 0.0}, {"n": 0}, {"n": 10_000}, {"logprobs": 21},
        {"logit_bias": ((100_000, 1.0),)}, {"logit_bias": ((-1, 1.0),)}, {"logit_bias": ((1, 101.0),)},
        {"temperature": float("nan")}, {"repetition_penalty": float("inf")}, {"top_k": 2**63, "temperature": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_sampled_is_refused_by_name_before_it_costs_anything(
    engine: Engine, sampling: dict[str, Any]
) -> None:
    request = ask_for(**sampling)
    with pytest.raises(InvalidInput) as counted:
        engine.count_prompt_tokens(request)
    assert counted.value.where == next(iter(sampling))
    with pytest.raises(InvalidInput):
        run(collect(engine, request))
    assert not engine._tickets


def test_a_reader_who_takes_nothing_loses_its_answer_and_not_the_engine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_patience_s", 0.0)

    async def read_nothing() -> None:
        async with aclosing(cast(Any, engine.stream(ask_for(max_tokens=200)))) as deltas:
            await anext(deltas)
            with engine._change:  # blocks this loop: nothing is taken meanwhile
                assert engine._change.wait_for(lambda: not engine._tickets, timeout=20)
            async for _ in deltas:
                pass

    with pytest.raises(Unavailable, match="nobody reads"):
        run(read_nothing())
    monkeypatch.undo()
    assert run(collect(engine, ask_for()))[-1].finish_reason == "length"
