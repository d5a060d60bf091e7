"""What every `ModelEngine` promises beyond a `ChatProvider`. Subclass `EngineContract` and give it five fixtures:

    class TestMyEngine(EngineContract):
        @pytest.fixture
        def engine(self): ...            # started, and stopped after; over the base below
        @pytest.fixture
        def base(self): return "..."     # the name its base is asked for by; its context holds 512 tokens
        @pytest.fixture
        def adapters(self): ...          # {digest: folder} of two adapters on that base, not loaded, unlike each other
        @pytest.fixture
        def foreign(self): ...           # a folder of an adapter on another base
        @pytest.fixture
        def held(self): ...              # `with held():` an answer begins there, and comes to no end: see below

`lacks` names what it cannot do: `logprobs`, `format`, `tools`, `tokens` (log-probabilities come without ids).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import Conflict, EspalierError, InvalidInput, NotFound, Unavailable
from espalier.core.ids import make_id
from espalier.core.ports import ChatProvider, ChatRequest, Delta, ModelEngine
from espalier.core.types import Message, ResponseFormat, SamplingSpec, TokenLogprob, Tool
from espalier.testing.contracts.provider import ProviderContract, collect, open_stream, text_of

_QUESTION = "one two three four five six seven eight"
_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
_CHOICE = {
    "type": "object", "properties": {"one": {"enum": ["a", "b"]}}, "required": ["one"], "additionalProperties": False,
}  # fmt: skip
_PATIENCE_S = 120.0
Held = Callable[[], AbstractContextManager[None]]


class EngineContract(ProviderContract):
    """Greedy answers in float32 throughout, so that any two ways to the same answer can be compared.

    `held` is for what is tested of an answer that is under way: inside it, an answer of 400 tokens is still under way
    when it is looked at, however quick the engine is and however late the test; until it is cancelled, or the engine
    stopped. Some of its first pieces come.
    """

    lacks: frozenset[str] = frozenset()

    @pytest.fixture
    def provider(self, engine: ModelEngine) -> ChatProvider:
        return engine

    def ask(self, base: str, adapter: str = "", text: str = _QUESTION, **sampling: Any) -> ChatRequest:
        spec = SamplingSpec(**{"max_tokens": 8, **sampling})
        return ChatRequest(make_id("req"), base, adapter, [Message("user", text)], spec)

    @contextmanager
    def loaded(self, engine: ModelEngine, adapters: dict[str, Path]) -> Iterator[list[str]]:
        """The adapters' digests, which may be asked inside."""
        for digest, folder in adapters.items():
            engine.load_adapter(digest, folder)
        try:
            yield list(adapters)
        finally:
            for digest in set(adapters) & set(engine.list_adapters()):
                engine.unload_adapter(digest)

    def test_a_loaded_adapter_is_listed_and_answers_as_itself(
        self, engine: ModelEngine, base: str, adapters: dict[str, Path]
    ) -> None:
        async def ask_all(digests: list[str]) -> list[list[Delta]]:
            return [await collect(engine, self.ask(base, digest)) for digest in ["", *digests]]

        with self.loaded(engine, adapters) as digests:
            assert set(digests) <= set(engine.list_adapters())
            answers = self.run(ask_all(digests))
        assert len({text_of(deltas) for deltas in answers}) == 3
        for digest, deltas in zip(["", *digests], answers, strict=True):
            assert deltas[-1].adapter in (None, digest)

    def test_loading_twice_is_loading_once(self, engine: ModelEngine, adapters: dict[str, Path]) -> None:
        with self.loaded(engine, adapters), self.loaded(engine, adapters) as digests:
            assert sorted(digests) == sorted(set(engine.list_adapters()) & set(digests))

    def test_answers_of_several_adapters_together_equal_those_given_alone(
        self, engine: ModelEngine, base: str, adapters: dict[str, Path]
    ) -> None:
        async def ask_both_ways(digests: list[str]) -> tuple[list[str], list[str]]:
            wanted = [(digest, text) for text in ("alpha beta", "gamma") for digest in ["", *digests]]
            alone = [text_of(await collect(engine, self.ask(base, *each))) for each in wanted]
            together = await asyncio.gather(*(collect(engine, self.ask(base, *each)) for each in wanted))
            return alone, [text_of(deltas) for deltas in together]

        with self.loaded(engine, adapters) as digests:
            alone, together = self.run(ask_both_ways(digests))
        assert together == alone

    def test_an_adapter_that_is_not_loaded_is_not_found(
        self, engine: ModelEngine, base: str, adapters: dict[str, Path]
    ) -> None:
        digest = next(iter(adapters))
        for _ in range(2):  # before it was ever loaded, and after it was unloaded
            with pytest.raises(NotFound):
                self.run(collect(engine, self.ask(base, digest)))
            with pytest.raises(NotFound):
                engine.unload_adapter(digest)
            engine.load_adapter(digest, adapters[digest])
            engine.unload_adapter(digest)
        assert digest not in engine.list_adapters()

    def test_an_adapter_of_another_base_is_refused(self, engine: ModelEngine, foreign: Path) -> None:
        with pytest.raises(EspalierError) as caught:
            engine.load_adapter("f" * 64, foreign)
        assert caught.value.http_status in (400, 409)
        assert "f" * 64 not in engine.list_adapters()

    def test_unloading_waits_for_an_answer_under_way_and_takes_no_new_request(
        self, engine: ModelEngine, base: str, adapters: dict[str, Path]
    ) -> None:
        digest = next(iter(adapters))
        engine.load_adapter(digest, adapters[digest])

        async def unload_in_the_middle() -> tuple[str, str]:
            whole = text_of(await collect(engine, self.ask(base, digest, max_tokens=40)))
            deltas = []
            async with aclosing(open_stream(engine, self.ask(base, digest, max_tokens=40))) as stream:
                deltas.append(await anext(stream))
                unloading = asyncio.create_task(asyncio.to_thread(engine.unload_adapter, digest))
                deltas += [delta async for delta in stream]
            await unloading
            return whole, text_of(deltas)

        whole, interrupted = self.run(unload_in_the_middle())
        assert interrupted == whole
        with pytest.raises((NotFound, Conflict)):
            self.run(collect(engine, self.ask(base, digest)))

    @pytest.mark.parametrize("temperature", [0.0, 0.9])
    def test_each_of_several_answers_ends_once_and_the_last_tells_the_usage_of_all(
        self, engine: ModelEngine, base: str, temperature: float
    ) -> None:
        request = self.ask(base, n=3, temperature=temperature, seed=7)
        deltas = self.run(collect(engine, request))
        ends = [delta.index for delta in deltas if delta.finish_reason]
        assert sorted(ends) == [0, 1, 2]
        assert deltas[-1].finish_reason and deltas[-1].usage is not None
        assert 3 <= deltas[-1].usage.completion_tokens <= 3 * request.sampling.max_tokens
        texts = {index: text_of([d for d in deltas if d.index == index]) for index in range(3)}
        assert len(set(texts.values())) == 1 if temperature == 0 else len(set(texts.values())) > 1

    def test_a_seed_repeats_an_answer_and_another_changes_it(self, engine: ModelEngine, base: str) -> None:
        async def ask(seed: int) -> str:
            return text_of(await collect(engine, self.ask(base, temperature=1.0, seed=seed, max_tokens=16)))

        async def ask_thrice() -> list[str]:
            return [await ask(1), await ask(1), await ask(2)]

        first, again, other = self.run(ask_thrice())
        assert first == again != other

    def test_log_probabilities_are_of_the_text_and_the_likeliest_come_first(
        self, engine: ModelEngine, base: str
    ) -> None:
        if "logprobs" in self.lacks:
            pytest.skip("this engine tells none")
        deltas = self.run(collect(engine, self.ask(base, logprobs=3)))
        tokens = [token for delta in deltas for token in delta.logprobs]
        told = iter(b"".join(token.text for token in tokens))
        # What is no character is no text, and special tokens are none; all else is there, in order.
        assert tokens and all(byte in told for byte in text_of(deltas).encode("ascii", "ignore"))
        for token in tokens:
            values = [each.logprob for each in token.top]
            assert len(values) == 3 and values == sorted(values, reverse=True) and values[0] <= 0
            assert token.logprob == pytest.approx(values[0])  # greedy: the chosen one is the likeliest
            assert "tokens" in self.lacks or _same_token(token, token.top[0])

    @pytest.mark.parametrize(
        ("form", "holds"),
        [
            (ResponseFormat(kind="json_schema", text=json.dumps(_SCHEMA)), lambda text: "n" in json.loads(text)),
            (ResponseFormat(kind="regex", text="(yes|no), [0-9]{2}"), lambda text: len(text.split(", ")[1]) == 2),
            (
                ResponseFormat(kind="grammar", text='start: "a" "b"+ "c"\n'),
                lambda text: text.strip("ac").strip("b") == "",
            ),
        ],
        ids=["json_schema", "regex", "grammar"],
    )
    def test_an_answer_has_the_form_that_was_asked_for_also_under_an_adapter(
        self,
        engine: ModelEngine,
        base: str,
        adapters: dict[str, Path],
        form: ResponseFormat,
        holds: Callable[[str], bool],
    ) -> None:
        if "format" in self.lacks:
            pytest.skip("this engine knows no forms")

        async def ask_all(digests: list[str]) -> list[list[Delta]]:
            # A bias against runs of the same character, which a random model is fond of, lets forms come to their end.
            wanted = [self.ask(base, digest, format=form, max_tokens=48, repetition_penalty=1.3) for digest in digests]
            return [await collect(engine, each) for each in wanted]

        with self.loaded(engine, adapters) as digests:
            answers = self.run(ask_all(["", *digests]))
        ended = [text_of(deltas) for deltas in answers if deltas[-1].finish_reason == "stop"]
        assert ended and all(holds(text) for text in ended)

    def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_schema(
        self, engine: ModelEngine, base: str, adapters: dict[str, Path]
    ) -> None:
        if "tools" in self.lacks:
            pytest.skip("this engine's base knows no tools")
        tool = Tool(name="pick", description="Pick one.", parameters=_CHOICE)
        with self.loaded(engine, adapters) as digests:
            for adapter in ["", digests[0]]:
                request = self.ask(base, adapter, "hi", max_tokens=100)
                request.tools, request.tool_choice, request.parallel_calls = (tool,), "required", False
                deltas = self.run(collect(engine, request))
                assert deltas[-1].finish_reason == "tool_calls"
                calls = [call for delta in deltas for call in delta.tool_calls]
                assert calls and {call.name for call in calls} == {"pick"}
                assert all(json.loads(call.arguments)["one"] in ("a", "b") for call in calls)

    def test_a_bias_keeps_a_token_out(self, engine: ModelEngine, base: str) -> None:
        if "logprobs" in self.lacks or "tokens" in self.lacks:
            pytest.skip("this engine tells no ids")

        async def ask_both() -> tuple[list[int], list[int]]:
            free = await collect(engine, self.ask(base, logprobs=0))
            chosen = [token.id for delta in free for token in delta.logprobs]
            bound = await collect(engine, self.ask(base, logprobs=0, logit_bias=((chosen[0], -100.0),)))
            return chosen, [token.id for delta in bound for token in delta.logprobs]

        free, bound = self.run(ask_both())
        assert free[0] not in bound

    def test_answers_go_on_past_an_end_where_it_is_to_be_ignored(self, engine: ModelEngine, base: str) -> None:
        last = self.run(collect(engine, self.ask(base, ignore_end=True, max_tokens=20)))[-1]
        assert last.finish_reason == "length"
        assert last.usage is not None and last.usage.completion_tokens == 20

    def test_a_prompt_longer_than_the_context_is_refused_and_the_engine_goes_on(
        self, engine: ModelEngine, base: str
    ) -> None:
        with pytest.raises(InvalidInput):
            self.run(collect(engine, self.ask(base, text="word " * 5000)))
        assert self.run(collect(engine, self.ask(base)))[-1].finish_reason is not None

    def test_load_counts_what_is_under_way_and_comes_back_to_nothing(
        self, engine: ModelEngine, base: str, held: Held
    ) -> None:
        async def look_in_the_middle() -> int:
            async with aclosing(open_stream(engine, self.ask(base, max_tokens=400, ignore_end=True))) as deltas:
                await anext(deltas)
                load = await asyncio.to_thread(engine.load)
                return load.running + load.waiting

        with held():
            assert self.run(look_in_the_middle()) >= 1
        _wait_until(lambda: engine.load().running + engine.load().waiting == 0)

    def test_it_starts_again_after_it_was_stopped_and_answers_meanwhile_end_as_cancelled(
        self, engine: ModelEngine, base: str, held: Held
    ) -> None:
        async def stop_in_the_middle() -> list[Delta]:
            async with aclosing(open_stream(engine, self.ask(base, max_tokens=400, ignore_end=True))) as deltas:
                seen = [await anext(deltas)]
                stopping = threading.Thread(target=engine.stop)
                stopping.start()
                seen += [delta async for delta in deltas]
                await asyncio.to_thread(stopping.join)
                return seen

        try:
            with held():
                assert self.run(stop_in_the_middle())[-1].finish_reason == "cancelled"
            with pytest.raises(Unavailable):
                self.run(collect(engine, self.ask(base)))
        finally:
            engine.start()
        assert self.run(collect(engine, self.ask(base)))[-1].finish_reason in ("stop", "length")


def _same_token(one: TokenLogprob, other: TokenLogprob) -> bool:
    return (one.id, one.text) == (other.id, other.text)


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)
