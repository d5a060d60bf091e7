from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch

from espalier.core.config import ServeConfig, SharingConfig
from espalier.core.errors import Conflict, DigestMismatch, EspalierError, InvalidInput, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta, Lane, ReservedShare
from espalier.core.types import Message, ResponseFormat, SamplingSpec
from espalier.nn.base import LoadedBase, load_base
from espalier.serve.engine import Engine
from espalier.serve.scheduler import Plan, Work
from espalier.testing.contracts.provider import ProviderContract
from espalier.testing.tiny import make_tiny_base

SMALL = ServeConfig(max_batch=4, max_context_tokens=300, step_budget_tokens=64)


@pytest.fixture
def engine(load_tiny: Callable[[], LoadedBase], adapter_folders: dict[str, Path]) -> Iterator[Engine]:
    engine = Engine(load_tiny(), SMALL)
    for name in ("a", "b"):
        engine.load_adapter(name, adapter_folders[name])
    engine.start()
    yield engine
    engine.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "espalier-engine"]


class TestAsProvider(ProviderContract):
    @pytest.fixture
    def provider(self, engine: Engine) -> Engine:
        return engine

    @pytest.fixture
    def base(self, tiny_folder: Path) -> str:
        return f"path:{tiny_folder}"


def make_request(text: str = "hello", adapter: str = "", **sampling: Any) -> ChatRequest:
    return ChatRequest("req", "", adapter, [Message("user", text)], SamplingSpec(**{"max_tokens": 20, **sampling}))


async def collect(engine: Engine, request: ChatRequest) -> list[Delta]:
    async with aclosing(engine.stream(request)) as deltas:  # type: ignore[type-var]
        return [delta async for delta in deltas]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 120))


def idle(engine: Engine) -> bool:
    with engine._change:
        return engine._change.wait_for(lambda: not engine._scheduler.busy, timeout=60)


@pytest.mark.parametrize("adapter", ["", "a", "b"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 3}, {"stop": ("e", "o")}], ids=str)
def test_a_streamed_answer_equals_the_same_answer_not_streamed(
    engine: Engine, adapter: str, sampling: dict[str, Any]
) -> None:
    request = make_request("Größe?", adapter, **sampling)
    whole = engine.generate([request.messages], request.sampling, adapter)[0]
    if sampling.get("seed") is not None:  # a batch gives each conversation a stream of its own
        request.sampling = request.sampling.model_copy(update={"seed": 3 * 1_000_003})
    deltas = run(collect(engine, request))
    assert "".join(delta.text for delta in deltas) == whole.text
    assert deltas[-1].finish_reason == whole.finish_reason
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_text_without_stop_strings_is_the_tokenizers_own_decoding(engine: Engine) -> None:
    answers = engine.generate([[Message("user", str(i))] for i in range(8)], SamplingSpec(max_tokens=30))
    for answer in answers:
        ids = [id for id in answer.token_ids if id not in engine.base.eos_ids]
        assert answer.text == engine.base.tokenizer.decode(ids)
        assert answer.usage.completion_tokens == len(answer.token_ids)


def test_the_end_token_ends_an_answer_and_is_no_text(
    load_tiny: Callable[[], LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_tiny()
    plain = Engine(base, SMALL).generate([[Message("user", "hello")]], SamplingSpec(max_tokens=20))[0]
    assert plain.finish_reason == "length"
    fifth = plain.token_ids[4]
    object.__setattr__(base := load_tiny(), "eos_ids", frozenset({fifth}))
    ended = Engine(base, SMALL).generate([[Message("user", "hello")]], SamplingSpec(max_tokens=20))[0]
    first = plain.token_ids.index(fifth)
    assert ended.finish_reason == "stop"
    assert ended.token_ids == plain.token_ids[: first + 1]
    assert ended.text == base.tokenizer.decode(list(plain.token_ids[:first]))


def test_a_seed_repeats_an_answer_whoever_else_is_asking(engine: Engine) -> None:
    warm = {"temperature": 1.0, "top_p": 0.9, "seed": 11}

    async def ask() -> tuple[str, str]:
        alone = await collect(engine, make_request("hello", **warm))
        others = [collect(engine, make_request(f"other {i}", "a", temperature=1.0)) for i in range(6)]
        together = await asyncio.gather(collect(engine, make_request("hello", **warm)), *others)
        return text_of(alone), text_of(together[0])

    alone, together = run(ask())
    assert alone == together
    assert alone != text_of(run(collect(engine, make_request("hello", **{**warm, "seed": 12}))))


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_leaving_a_stream_frees_its_slot(engine: Engine) -> None:
    async def leave() -> None:
        async with aclosing(engine.stream(make_request(max_tokens=200))) as deltas:  # type: ignore[type-var]
            await anext(deltas)

    run(leave())
    assert idle(engine)
    assert not engine._tickets


def test_stopping_ends_answers_under_way_as_cancelled_with_their_usage(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, steps = engine._runner._forward, itertools.count()

    def go_no_further(*args: Any) -> torch.Tensor:
        if next(steps) == 30:  # the answer is under way until it is stopped, however quick the machine is
            with engine._change:
                assert engine._change.wait_for(lambda: engine._stopping, timeout=20)
        return forward(*args)

    async def ask_then_stop() -> list[Delta]:
        seen: list[Delta] = []
        async for delta in engine.stream(make_request(max_tokens=250, ignore_end=True)):
            seen.append(delta)
            if len(seen) == 1:
                await asyncio.to_thread(engine.stop)
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(engine._runner, "_forward", go_no_further)
        last = run(ask_then_stop())[-1]
    assert last.finish_reason == "cancelled"
    assert last.usage.completion_tokens < 250
    with pytest.raises(Unavailable):
        run(collect(engine, make_request()))
    engine.start()
    assert run(collect(engine, make_request()))[-1].finish_reason == "length"


def test_unloading_waits_for_answers_under_way_and_refuses_new_ones(engine: Engine) -> None:
    async def drain() -> tuple[list[Delta], str]:
        with engine._turn:  # nobody computes: what is under way stays under way
            asking = asyncio.create_task(collect(engine, make_request(adapter="a", max_tokens=120)))
            while not engine._tickets:
                await asyncio.sleep(0.001)
            unloading = asyncio.create_task(asyncio.to_thread(engine.unload_adapter, "a"))
            while "a" in engine.list_adapters():
                await asyncio.sleep(0.001)
            with pytest.raises(Conflict, match="being unloaded"):
                engine.generate([[Message("user", "x")]], SamplingSpec(max_tokens=1), "a")
            assert not unloading.done()
        seen = await asking
        await unloading
        return seen, text_of(seen)

    expected = run(collect(engine, make_request(adapter="a", max_tokens=120)))
    seen, text = run(drain())
    assert (seen[-1].text, seen[-1].finish_reason) == (expected[-1].text, expected[-1].finish_reason)
    assert text == text_of(expected)
    with pytest.raises(NotFound, match="not loaded"):
        run(collect(engine, make_request(adapter="a")))


def test_an_adapter_of_another_base_is_refused_and_nothing_is_loaded(
    load_tiny: Callable[[], LoadedBase], adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    other = Engine(load_base(f"path:{make_tiny_base(tmp_path, seed=7)}"), SMALL)
    with pytest.raises(DigestMismatch):
        other.load_adapter("a", adapter_folders["a"])
    assert other.list_adapters() == []


@pytest.mark.parametrize(
    ("text", "max_tokens", "says"),
    [("hello", 290, "ask for at most"), ("x" * 400, 10, "shorten the prompt by at least")],
)
def test_a_prompt_too_long_says_how_long_what_fits_and_what_to_do(
    engine: Engine, text: str, max_tokens: int, says: str
) -> None:
    request = make_request(text, max_tokens=max_tokens)
    with pytest.raises(InvalidInput) as caught:
        run(collect(engine, request))
    assert str(engine.count_prompt_tokens(request)) in caught.value.message
    assert "holds 300" in caught.value.message
    assert says in caught.value.hint


@pytest.mark.parametrize("sampling", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_sampling_that_means_nothing_is_refused(engine: Engine, sampling: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        run(collect(engine, make_request(**sampling)))


def test_a_failing_step_ends_its_requests_and_the_engine_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = text_of(run(collect(engine, make_request())))
    forward = engine._runner._forward

    def fail(*args: Any) -> torch.Tensor:
        monkeypatch.setattr(engine._runner, "_forward", forward)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._runner, "_forward", fail)
    with pytest.raises(EspalierError, match="out of memory"):
        run(collect(engine, make_request()))
    assert text_of(run(collect(engine, make_request()))) == expected


def test_a_bug_in_a_step_leaves_nobody_waiting(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> torch.Tensor:
        raise LookupError("a bug")

    monkeypatch.setattr(engine._runner, "_forward", fail)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    assert run(collect(engine, make_request()))[-1].finish_reason == "cancelled"
    assert not engine.answering
    with pytest.raises(Unavailable):
        run(collect(engine, make_request()))
    engine.stop()  # its thread ends within the hook above


def test_an_engine_that_ends_while_a_form_is_compiled_refuses_the_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = engine._shape

    def compile_slowly(request: ChatRequest) -> Any:
        engine.stop()
        return shape(request)

    monkeypatch.setattr(engine, "_shape", compile_slowly)
    with pytest.raises(Unavailable, match="not running"):
        run(collect(engine, make_request(format=ResponseFormat(kind="regex", text="[a-z]+"))))


def test_a_form_that_becomes_too_complex_is_an_error_and_no_short_answer(engine: Engine) -> None:
    words = engine.base.tokenizer
    last = tuple((id, -100.0) for id in range(words.size) if "z" in words.decode([id]))  # the form's end, never chosen
    form = ResponseFormat(kind="regex", text="((a{0,200}){0,200}){0,200}z")
    with pytest.raises(InvalidInput, match="too complex"):
        run(collect(engine, make_request(format=form, logit_bias=last, max_tokens=200)))
    assert idle(engine)
    assert run(collect(engine, make_request()))[-1].finish_reason in ("stop", "length")


def test_a_batch_too_long_in_one_place_is_refused_before_anything_is_computed(engine: Engine) -> None:
    batch = [[Message("user", "short")], [Message("user", "x" * 400)]]
    with pytest.raises(InvalidInput):
        engine.generate(batch, SamplingSpec(max_tokens=5))
    assert not engine._tickets


def test_an_adapter_whose_numbers_overflow_fails_alone_and_leaves_no_trace(
    engine: Engine, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    wild = shutil.copytree(adapter_folders["b"], tmp_path / "wild")
    state = {name: tensor * 1e25 for name, tensor in load_file(wild / "adapter_model.safetensors").items()}
    save_file(state, wild / "adapter_model.safetensors")
    engine.load_adapter("wild", wild)
    expected = [text_of(run(collect(engine, make_request(adapter=name)))) for name in ("", "a")]

    async def together() -> list[Any]:
        requests = [make_request(adapter=name) for name in ("wild", "", "wild", "a")]
        return await asyncio.gather(*(collect(engine, each) for each in requests), return_exceptions=True)

    for _ in range(3):  # each time in slots that the wild ones have used
        first, plain, second, tuned = run(together())
        assert isinstance(first, EspalierError)
        assert isinstance(second, EspalierError)
        assert [text_of(plain), text_of(tuned)] == expected


def test_two_requests_with_the_same_id_are_two_requests(engine: Engine) -> None:
    beginning = "the same beginning, long enough to be read once for all answers under way, word for word; "

    async def both() -> list[list[Delta]]:
        return await asyncio.gather(*(collect(engine, make_request(beginning + end)) for end in ("one", "two")))

    alone = [text_of(run(collect(engine, make_request(beginning + end)))) for end in ("one", "two")]
    assert [text_of(deltas) for deltas in run(both())] == alone
    for _ in range(2):  # batch after batch, ids repeat while prompts change
        for end in ("one", "two"):
            batch = [[Message("user", beginning + end)], [Message("user", end + beginning)]]
            found = engine.generate(batch, SamplingSpec(max_tokens=20))
            assert found[0].text == alone[("one", "two").index(end)]


def test_a_full_queue_is_refused_at_once_with_the_time_to_wait(load_tiny: Callable[[], LoadedBase]) -> None:
    full = Engine(load_tiny(), SMALL.model_copy(update={"sharing": SharingConfig(max_waiting=0)})).start()
    with pytest.raises(Unavailable, match="waiting") as caught:
        run(collect(full, make_request()))
    assert caught.value.retry_after_s > 0
    full.stop()


def test_each_of_several_answers_counts_and_none_waits_behind_who_came_later(
    load_tiny: Callable[[], LoadedBase],
) -> None:
    sharing = SharingConfig(max_waiting=5)
    engine = Engine(load_tiny(), SMALL.model_copy(update={"sharing": sharing, "max_batch": 1})).start()

    async def ask_both() -> list[str]:
        ended: list[str] = []

        async def ask(name: str, n: int) -> None:
            async for delta in engine.stream(make_request(name, max_tokens=6, n=n)):
                ended.extend([f"{name} {delta.index}"] if delta.finish_reason else [])

        with engine._turn:  # nobody computes until both wait
            several = asyncio.create_task(ask("several", 3))
            while engine.load().waiting < 3:
                await asyncio.sleep(0.001)
            with pytest.raises(Unavailable, match="3 answers"):
                await ask("too many", 3)
            later = asyncio.create_task(ask("later", 1))
            while engine.load().waiting < 4:
                await asyncio.sleep(0.001)
        await asyncio.gather(several, later)
        return ended

    assert run(ask_both()) == ["several 0", "several 1", "several 2", "later 0"]
    engine.stop()


def test_a_cache_larger_than_any_memory_is_refused_with_its_size(load_tiny: Callable[[], LoadedBase]) -> None:
    base = load_tiny()
    object.__setattr__(base, "context_tokens", 10**12)
    with pytest.raises(InvalidInput, match="GB"):
        Engine(base, ServeConfig(max_batch=512, max_context_tokens=10**12))


def test_a_shared_beginning_is_read_once_and_answers_stay_those_of_transformers(
    load_tiny: Callable[[], LoadedBase],
) -> None:
    base = load_tiny()
    beginning = "Answer as a record of the house, in its schema, with every field filled from the ticket. " * 2
    batch = [[Message("user", f"{beginning} Ticket {i}: " + "word " * (i % 5))] for i in range(9)]
    expected = []
    for messages in batch:
        ids = torch.tensor([base.tokenizer.encode_prompt(messages)])
        out = base.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
        expected.append(tuple(out[0, ids.shape[1] :].tolist()))
    engine = Engine(base, SMALL)
    seen: list[int] = []
    begin = engine._runner._cache.begin
    engine._runner._cache.begin = lambda step: (seen.append(step.shared), begin(step))[1]  # type: ignore[method-assign]
    found = engine.generate(batch, SamplingSpec(max_tokens=20))
    assert [answer.token_ids for answer in found] == expected
    assert max(seen) > 100


def test_the_same_question_many_times_at_different_progress_has_one_answer(engine: Engine) -> None:
    question = "the same long question, asked again and again while earlier askers are still being answered; " * 2

    async def ask(delay_tokens: int) -> str:
        async with aclosing(engine.stream(make_request(max_tokens=1 + delay_tokens))) as deltas:  # type: ignore[type-var]
            async for _ in deltas:
                pass
        return text_of(await collect(engine, make_request(question, max_tokens=30)))

    async def ask_all() -> list[str]:
        return await asyncio.gather(*(ask(3 * i) for i in range(4)))

    assert set(run(ask_all())) == {text_of(run(collect(engine, make_request(question, max_tokens=30))))}


def test_capacity_is_held_from_the_next_step_on_and_load_tells_who_waits(
    load_tiny: Callable[[], LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(load_tiny(), SMALL).start()
    engine.hold([ReservedShare("gold", 2, 60_000)])
    with pytest.raises(InvalidInput, match="4 slots"):
        engine.hold([ReservedShare("gold", 4, 60_000)])

    on_demand: list[int] = []  # at each step, those without a reservation that have a slot
    ended: list[str] = []
    plan, release = engine._scheduler.plan, engine._scheduler.release

    def watch_plan() -> Plan:
        planned = plan()
        on_demand.append(sum(not work.guaranteed for work in engine._scheduler.running))
        return planned

    def watch_release(work: Work) -> None:
        ended.append(work.claim.reservation or work.claim.flow)
        release(work)

    monkeypatch.setattr(engine._scheduler, "plan", watch_plan)
    monkeypatch.setattr(engine._scheduler, "release", watch_release)

    async def flood() -> str:
        def ask(i: int, reservation: str = "") -> asyncio.Task[list[Delta]]:
            request = make_request(f"question {i}", max_tokens=40, ignore_end=True)
            request.flow, request.reservation = f"flow{i}", reservation
            return asyncio.create_task(collect(engine, request))

        with engine._turn:  # nobody computes until all have asked, the reserved one last
            others = [ask(i) for i in range(6)]
            while engine.load().waiting < 6:
                await asyncio.sleep(0.001)
            gold = ask(9, "gold")
            while engine.load().waiting < 7:
                await asyncio.sleep(0.001)
            load = engine.load()
            assert (load.running, load.slots) == (0, 4) and load.queue_s > 0 and load.tokens_in_flight > 7 * 40
        await asyncio.gather(gold, *others)
        return text_of(gold.result())

    found = run(flood())
    assert max(on_demand) <= 2
    assert len(ended) == 7 and ended[0] == "gold", "the reserved one waited for others"
    load = engine.load()
    assert (load.running, load.waiting, load.tokens_in_flight, load.queue_s) == (0, 0, 0, 0.0)
    alone = run(collect(engine, make_request("question 9", max_tokens=40, ignore_end=True)))
    assert found == text_of(alone)
    engine.stop()


def test_a_batch_answer_whose_slot_was_taken_is_the_same_answer(
    load_tiny: Callable[[], LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(load_tiny(), SMALL).start()
    evicted: list[int] = []
    evict = engine._scheduler._evict
    monkeypatch.setattr(engine._scheduler, "_evict", lambda: (slot := evict(), evicted.append(slot))[0])
    asked, forward = threading.Event(), engine._runner._forward

    def go_no_further(*args: Any) -> torch.Tensor:
        if len(engine._scheduler.running) == 4:  # the batch has all slots, and keeps them until others want one
            assert asked.wait(60)
        return forward(*args)

    monkeypatch.setattr(engine._runner, "_forward", go_no_further)

    def ask(i: int, lane: Lane, tokens: int) -> asyncio.Task[list[Delta]]:
        request = make_request(f"question {i}", max_tokens=tokens, ignore_end=True)
        request.lane = lane
        return asyncio.create_task(collect(engine, request))

    async def all_at_once() -> list[str]:
        with engine._turn:  # nobody computes until all of the batch wait
            batch = [ask(i, "batch", 200) for i in range(4)]
            while engine.load().waiting < 4:
                await asyncio.sleep(0.001)
        while engine.load().waiting:
            await asyncio.sleep(0.001)
        people = [ask(10 + i, "interactive", 5) for i in range(3)]
        while engine.load().waiting < 3:
            await asyncio.sleep(0.001)
        asked.set()
        await asyncio.gather(*people)
        return [text_of(await task) for task in batch]

    together = run(all_at_once())
    assert evicted
    again = [make_request(f"question {i}", max_tokens=200, ignore_end=True) for i in range(4)]
    assert together == [text_of(run(collect(engine, request))) for request in again]
    engine.stop()
