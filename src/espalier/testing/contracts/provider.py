"""What every `ChatProvider` promises. Subclass `ProviderContract` in a test module and give it two fixtures:

    class TestMyProvider(ProviderContract):
        @pytest.fixture
        def provider(self): ...          # a started provider
        @pytest.fixture
        def base(self): return "..."     # the name of a base it has

The tests drive it on an event loop of their own; a provider bound to a loop at construction overrides `run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar, cast

import pytest

from espalier.core.errors import EspalierError
from espalier.core.ids import make_id
from espalier.core.ports import ChatProvider, ChatRequest, Delta
from espalier.core.types import Message, SamplingSpec

Result = TypeVar("Result")

_QUESTION = "one two three four five six seven eight"


class ProviderContract:
    """Greedy answers throughout: a provider that cannot be deterministic cannot be checked."""

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run(asyncio.wait_for(work, 120))

    def request(self, base: str, text: str = _QUESTION, **sampling: Any) -> ChatRequest:
        spec = SamplingSpec(**{"max_tokens": 6, **sampling})
        return ChatRequest(make_id("req"), base, "", [Message("user", text)], spec)

    def test_only_the_last_delta_carries_a_finish_reason_and_it_carries_usage(
        self, provider: ChatProvider, base: str
    ) -> None:
        deltas = self.run(collect(provider, self.request(base)))
        assert [delta.finish_reason is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]
        assert deltas[-1].usage is not None

    def test_the_same_question_has_the_same_answer(self, provider: ChatProvider, base: str) -> None:
        async def ask_twice() -> tuple[str, str]:
            one, other = self.request(base), self.request(base)
            return text_of(await collect(provider, one)), text_of(await collect(provider, other))

        first, second = self.run(ask_twice())
        assert first == second

    def test_no_more_tokens_come_than_were_asked_for(self, provider: ChatProvider, base: str) -> None:
        last = self.run(collect(provider, self.request(base, max_tokens=2)))[-1]
        assert last.usage is not None
        assert last.usage.completion_tokens <= 2
        assert last.finish_reason == "length" or last.usage.completion_tokens < 2

    def test_the_prompt_was_counted_before_at_no_less_than_was_used(self, provider: ChatProvider, base: str) -> None:
        request = self.request(base)
        counted = provider.count_prompt_tokens(request)
        last = self.run(collect(provider, request))[-1]
        assert last.usage is not None
        assert 0 < last.usage.prompt_tokens <= counted

    def test_usage_said_on_the_way_never_shrinks(self, provider: ChatProvider, base: str) -> None:
        deltas = self.run(collect(provider, self.request(base)))
        said = [delta.usage.completion_tokens for delta in deltas if delta.usage is not None]
        assert said == sorted(said)

    def test_an_answer_ends_before_a_stop_string(self, provider: ChatProvider, base: str) -> None:
        async def ask_twice() -> tuple[str, str, list[Delta]]:
            whole = text_of(await collect(provider, self.request(base)))
            stop = whole[len(whole) // 2 :][:3]
            deltas = await collect(provider, self.request(base, stop=(stop,)))
            return whole, stop, deltas

        whole, stop, deltas = self.run(ask_twice())
        assert stop, "the provider gave no text to stop at"
        assert text_of(deltas) == whole.partition(stop)[0]
        assert deltas[-1].finish_reason == "stop"

    def test_closing_early_frees_the_request_for_others(self, provider: ChatProvider, base: str) -> None:
        async def leave_then_ask() -> list[Delta]:
            for _ in range(40):  # more than any provider of ours answers at once
                async with aclosing(open_stream(provider, self.request(base, max_tokens=40))) as deltas:
                    await anext(deltas)
            return await collect(provider, self.request(base))

        assert self.run(leave_then_ask())[-1].finish_reason is not None

    def test_answers_given_together_equal_answers_given_alone(self, provider: ChatProvider, base: str) -> None:
        questions = ["alpha beta", "beta alpha", "gamma delta epsilon", "one"]

        async def ask_both_ways() -> tuple[list[str], list[str]]:
            alone = [text_of(await collect(provider, self.request(base, question))) for question in questions]
            together = await asyncio.gather(*(collect(provider, self.request(base, each)) for each in questions))
            return alone, [text_of(deltas) for deltas in together]

        alone, together = self.run(ask_both_ways())
        assert together == alone

    def test_an_unknown_base_is_refused_in_our_words(self, provider: ChatProvider, base: str) -> None:
        with pytest.raises(EspalierError):
            self.run(collect(provider, self.request(f"{base}-that-is-not-there")))


def open_stream(provider: ChatProvider, request: ChatRequest) -> AsyncGenerator[Delta, None]:
    """The answer's deltas, to be closed by whoever stops reading."""
    return cast("AsyncGenerator[Delta, None]", provider.stream(request))


async def collect(provider: ChatProvider, request: ChatRequest) -> list[Delta]:
    """All deltas of an answer."""
    async with aclosing(open_stream(provider, request)) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[Delta]) -> str:
    """What they say, one after another."""
    return "".join(delta.text for delta in deltas)
