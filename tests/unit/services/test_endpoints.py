"""The client of OpenAI's contract against a strict double: patience, order, refusals, keys, and being stopped."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from espalier.core.errors import (
    BudgetExceeded,
    EspalierError,
    Interrupted,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from espalier.core.types import Message, SamplingSpec
from espalier.data.generate.spec import ModelSpec
from espalier.services.endpoints import open_endpoint
from espalier.testing.endpoint import Say, Script, StrictEndpoint, serve_script

GREEDY = SamplingSpec(max_tokens=7)


def ask(script: Script, texts: list[str], *, sampling: SamplingSpec = GREEDY, **fields: Any) -> tuple[list[str], Any]:
    with serve_script(script) as server:
        model = ModelSpec.model_validate({"endpoint": server.url, "model": "scripted", "pause_s": 0.01, **fields})
        with open_endpoint(model, {}) as endpoint:
            answers = endpoint([[Message("user", text)] for text in texts], sampling)
    return [f"{answer.finish_reason}: {answer.text}" for answer in answers], server


def last(call: dict[str, Any]) -> str:
    return str(call["messages"][-1]["content"])


def test_answers_stand_in_order_and_no_more_are_in_flight_than_wanted() -> None:
    running: list[StrictEndpoint] = []

    def script(call: dict[str, Any], before: int) -> Say:
        (server,) = running
        if last(call) in "ab":  # the first two are answered last
            return Say(last(call).upper(), until=lambda: len(server.requests) == 8)
        return Say(last(call).upper(), until=lambda: server.most_in_flight >= 3)

    with serve_script(script) as server:
        running.append(server)
        with open_endpoint(ModelSpec(endpoint=server.url, model="scripted", concurrency=3), {}) as endpoint:
            answers = endpoint([[Message("user", letter)] for letter in "abcdefgh"], GREEDY)
    assert [answer.text for answer in answers] == list("ABCDEFGH")
    assert server.most_in_flight == 3


def test_what_is_sent_is_what_the_recipe_says() -> None:
    def script(call: dict[str, Any], before: int) -> Say:
        return Say("ok")

    sampling = SamplingSpec(max_tokens=9, temperature=0.5, top_p=0.9, seed=3, stop=("END",))
    _, server = ask(script, ["hi"], sampling=sampling, length_field="max_completion_tokens", json_mode=True)
    assert server.requests == [
        {
            "model": "scripted",
            "messages": [{"role": "user", "content": "hi"}],
            "max_completion_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 3,
            "stop": ["END"],
            "response_format": {"type": "json_object"},
        }
    ]


@pytest.mark.parametrize(
    "busy",
    [
        Say(status=429, code="rate_limit_exceeded", headers={"Retry-After": "0.01"}),
        Say(status=429, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        Say(status=500),
        Say(status=503, headers={"Retry-After": "soon"}),
        Say(status=502, raw=b"<html>bad gateway</html>"),
        Say(raw=b'{"choices": ['),
        Say(raw=b'{"object": "list"}'),
    ],
)
def test_what_may_pass_is_tried_again(busy: Say) -> None:
    answers, server = ask(lambda call, before: busy if before < 2 else Say("at last"), ["a"])
    assert answers == ["stop: at last"]
    assert len(server.requests) == 3


def test_an_answer_that_does_not_come_in_time_is_asked_for_again() -> None:
    def script(call: dict[str, Any], before: int) -> Say:
        if before == 1:
            endpoint._patience_s = 60.0  # from the next one on, which is answered however busy the machine is
        return Say("late", delay_s=120) if before < 2 else Say("at last")

    with serve_script(script) as server:
        model = ModelSpec(endpoint=server.url, model="scripted", pause_s=0.01, timeout_s=0.5, retries=20)
        with open_endpoint(model, {}) as endpoint:
            assert endpoint([[Message("user", "a")]], GREEDY)[0].text == "at last"
    assert len(server.requests) >= 3  # more where the double, too, was held up


@pytest.mark.parametrize(
    ("busy", "error"),
    [(Say(status=429), RateLimited), (Say(status=500), Unavailable), (Say(raw=b"no completion"), Unavailable)],
)
def test_patience_ends(busy: Say, error: type[EspalierError]) -> None:
    with pytest.raises(error):
        ask(lambda call, before: busy, ["a"], retries=2)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (Say(status=401, code="invalid_api_key"), Unauthenticated),
        (Say(status=404, code="model_not_found"), NotFound),
        (Say(status=429, code="insufficient_quota"), BudgetExceeded),
    ],
)
def test_what_concerns_every_question_ends_the_work_at_once(said: Say, error: type[EspalierError]) -> None:
    asked = []

    def script(call: dict[str, Any], before: int) -> Say:
        asked.append(before)
        return said

    with pytest.raises(error):
        ask(script, ["a"])
    assert asked == [0]


def test_what_concerns_one_question_is_its_answer() -> None:
    def script(call: dict[str, Any], before: int) -> Say:
        return Say(status=400, message="too long") if last(call) == "b" else Say("fine")

    answers, server = ask(script, ["a", "b", "c"])
    assert answers == ["stop: fine", "error: too long", "stop: fine"]
    assert len(server.requests) == 3


def test_half_a_surrogate_pair_becomes_text() -> None:
    raw = (
        b'{"model": "m", "choices": [{"message": {"content": "a\\ud83d"}, "finish_reason": "stop"}],'
        b' "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
    )
    answers, _ = ask(lambda call, before: Say(raw=raw), ["x"])
    assert answers == ["stop: a?"]


def test_a_server_that_is_not_there_is_said_to_be() -> None:
    model = ModelSpec(endpoint="http://127.0.0.1:9/v1", model="m", retries=1, pause_s=0)
    with (
        open_endpoint(model, {}) as endpoint,
        pytest.raises(Unavailable, match=r"no answer from http://127.0.0.1:9/v1"),
    ):
        endpoint([[Message("user", "x")]], GREEDY)


def test_a_key_is_read_from_the_environment_and_sent() -> None:
    refusal = Say(status=401, message="Incorrect API key provided: secret")
    with serve_script(lambda call, before: refusal if before else Say("in"), key="secret") as server:
        model = ModelSpec(endpoint=server.url, model="scripted", key_env="MODEL_KEY")
        with open_endpoint(model, {"MODEL_KEY": "secret\n"}) as endpoint:
            assert endpoint([[Message("user", "x")]], GREEDY)[0].text == "in"
        with pytest.raises(InvalidInput, match="MODEL_KEY is empty"), open_endpoint(model, {}):
            pass
        assert "secret" not in model.model_dump_json() + model.subject
        with open_endpoint(model, {"MODEL_KEY": "secret"}) as endpoint, pytest.raises(Unauthenticated) as refused:
            endpoint([[Message("user", "x")]], GREEDY)
        assert "provided: ***" in str(refused.value)


def test_closing_ends_what_is_in_flight() -> None:
    told: list[BaseException] = []
    with serve_script(lambda call, before: Say("never", delay_s=60)) as server:
        model = ModelSpec(endpoint=server.url, model="scripted")
        with open_endpoint(model, {}) as endpoint:

            def wait() -> None:
                try:
                    endpoint([[Message("user", "x")]], GREEDY)
                except EspalierError as error:
                    told.append(error)

            waiting = threading.Thread(target=wait)
            waiting.start()
            while not server.requests:
                time.sleep(0.005)
        waiting.join(30)
    assert [type(error) for error in told] == [Interrupted]
    with pytest.raises(Interrupted):
        endpoint([[Message("user", "x")]], GREEDY)


def test_the_double_refuses_a_client_that_breaks_the_contract() -> None:
    with (
        pytest.raises(EspalierError, match="broke the contract: no model other"),
        serve_script(lambda call, before: Say("x")) as server,
    ):
        model = ModelSpec(endpoint=server.url, model="other")
        with open_endpoint(model, {}) as endpoint:
            assert endpoint([[Message("user", "x")]], GREEDY)[0].finish_reason == "error"
