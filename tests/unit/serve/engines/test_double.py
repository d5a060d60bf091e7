"""The double of vLLM is strict: what vLLM would refuse, or leave aside without a word, is refused and remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import EspalierError
from espalier.serve.engines.line import Line, Refused
from espalier.testing.vllm.model import Model
from espalier.testing.vllm.server import VllmDouble, VllmSettings, serve_vllm


@contextmanager
def running(model: Model, folder: Path, **settings: Any) -> Iterator[tuple[Line, VllmDouble]]:
    with serve_vllm(VllmSettings(folder, "served", **settings), model) as double:
        line = Line(double.url, key=double.settings.key)
        line.open()
        try:
            yield line, double
        finally:
            line.close()


def ask(line: Line, **fields: Any) -> list[bytes]:
    body = {"model": "served", "prompt": [1, 5, 6], "max_tokens": 4, "temperature": 0, "stream": True, **fields}

    async def read() -> list[bytes]:
        return [said async for said in line.stream("/v1/completions", body)]

    return asyncio.run(read())


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_json": "{}"},  # of vLLM before 0.11, which later ones leave aside
        {"temperature": "0"},
        {"temperature": -1},
        {"top_p": 0},
        {"n": 2},  # while nothing is drawn
        {"stop": [""]},
        {"prompt": [1, -5]},
        {"prompt": [1, 10**6]},
        {"logit_bias": {"999999": 1.0}},
        {"structured_outputs": {"regex": "a", "grammar": "b"}},
        {"structured_outputs": {}},
    ],
)
def test_a_request_that_breaks_the_contract_is_refused_and_raised_for_at_the_end(
    vllm_model: Model, tiny_folder: Path, fields: dict[str, Any]
) -> None:
    with pytest.raises(EspalierError, match="broke vLLM's contract"), running(vllm_model, tiny_folder) as (line, _):
        with pytest.raises(Refused) as caught:
            ask(line, **fields)
        assert caught.value.reply.status == 400
        assert json.loads(caught.value.reply.content)["error"]["code"] == 400


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"model": "nobody"}, 404), ({"max_tokens": 10**6}, 400), ({"logprobs": 21}, 400), ({"priority": 1}, 400)],
)
def test_what_only_the_server_can_know_is_refused_without_blame(
    vllm_model: Model, tiny_folder: Path, fields: dict[str, Any], status: int
) -> None:
    with running(vllm_model, tiny_folder, priorities=False) as (line, _):
        with pytest.raises(Refused) as caught:
            ask(line, **fields)
        assert caught.value.reply.status == status


def test_an_answer_is_told_as_vllm_tells_it(vllm_model: Model, tiny_folder: Path) -> None:
    with running(vllm_model, tiny_folder) as (line, _):
        said = ask(line, stream_options={"include_usage": True}, ignore_eos=True, return_token_ids=True)
    events = [line for line in said if line]
    assert events[-1] == b"data: [DONE]"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert [len(chunk["choices"]) for chunk in chunks] == [1, 1, 1, 1, 0]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, None, None, "length"]
    assert chunks[-1]["usage"]["total_tokens"] == 7
    assert all("usage" not in chunk for chunk in chunks[:-1])  # no continuous_usage_stats were asked for


def test_nothing_but_its_health_is_told_without_the_key(vllm_model: Model, tiny_folder: Path) -> None:
    with running(vllm_model, tiny_folder, key="right") as (_, double):
        stranger = Line(double.url, key="wrong")
        stranger.open()
        statuses = {path: stranger.call("GET", path).status for path in ("/health", "/metrics", "/v1/models")}
        assert stranger.call("POST", "/tokenize", {"prompt": "a"}).status == 401
        stranger.close()
    assert statuses == {"/health": 200, "/metrics": 200, "/v1/models": 401}


def test_an_adapter_is_a_folder_of_peft_that_fits_and_has_one_name(
    vllm_model: Model, tiny_folder: Path, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    with running(vllm_model, tiny_folder, max_lora_rank=8) as (line, double):

        def load(name: str, folder: Path) -> int:
            return line.call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)}).status

        assert load("a", tmp_path) == 404
        assert load("a", adapter_folders["b"]) == 500  # of rank 16
        assert (load("a", adapter_folders["a"]), load("a", adapter_folders["a"])) == (200, 400)
        assert line.call("POST", "/v1/unload_lora_adapter", {"lora_name": "b"}).status == 404
        assert list(double.loras) == ["a"]


def test_to_unload_while_answers_are_under_way_is_a_violation(
    vllm_model: Model, tiny_folder: Path, adapter_folders: dict[str, Path]
) -> None:
    with (
        pytest.raises(EspalierError, match="under way"),
        running(vllm_model, tiny_folder) as (line, double),
    ):
        line.call("POST", "/v1/load_lora_adapter", {"lora_name": "a", "lora_path": str(adapter_folders["a"])})
        double.under_way["a"] = 1
        line.call("POST", "/v1/unload_lora_adapter", {"lora_name": "a"})
