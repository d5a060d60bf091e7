"""A teacher behind an endpoint, against a strict double of vLLM's `prompt_logprobs` that computes a tiny model."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aiohttp import web
from transformers import AutoModelForCausalLM

from espalier.core.errors import DigestMismatch, InvalidInput, Unavailable
from espalier.core.events import Event
from espalier.core.types import Example, Message
from espalier.data.generate.spec import ModelSpec
from espalier.nn.base import load_base
from espalier.nn.probe import transformer_backbone
from espalier.services.endpoints import open_endpoint
from espalier.services.measuring import open_judge
from espalier.store.examples import write_examples
from espalier.testing.tiny import make_tiny_base
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import lay
from espalier.tokens.tokenizer import save_tokenizer, train_tokenizer
from espalier.train.corpus import Source
from espalier.train.distillation.remote import RemoteTeacher
from espalier.train.distillation.spec import DistillSpec
from espalier.train.distillation.teacher import LocalTeacher
from espalier.train.job import Job
from espalier.train.runner import run

FIELDS = {"model", "prompt", "max_tokens", "temperature", "prompt_logprobs"}
MOST = 20  # vLLM's own --max-logprobs
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("teacher"), seed=5)


@contextmanager
def serve(folder: Path, change: Change = lambda answer: answer) -> Iterator[str]:
    """vLLM's answer: the k likeliest ids of every place but the first, and the one that is there."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    async def complete(request: web.Request) -> web.Response:
        call = await request.json()
        assert call.keys() == FIELDS and call["max_tokens"] == 1 and call["model"] == "big"
        if call["prompt_logprobs"] > MOST:
            wrong = f"Requested prompt logprobs of {call['prompt_logprobs']}, which is greater than max allowed: {MOST}"
            return web.json_response({"error": {"message": wrong, "code": 400}}, status=400)
        ids = call["prompt"]
        with torch.no_grad():
            logp = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], -1)
        places: list[Any] = [None]
        for row, following in zip(logp[:-1], ids[1:], strict=True):
            told = {int(id): float(row[id]) for id in (*row.topk(call["prompt_logprobs"]).indices, following)}
            places.append({str(id): {"logprob": p, "rank": 1, "decoded_token": "?"} for id, p in told.items()})
        answer = {"object": "text_completion", "choices": [{"index": 0, "text": "x", "prompt_logprobs": places}]}
        return web.Response(body=json.dumps(change(answer)).encode())

    application = web.Application()
    application.router.add_post("/v1/completions", complete)
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found: dict[str, Any] = {}

    async def start() -> None:
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found["runner"], found["port"] = runner, runner.addresses[0][1]
        ready.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(start()), loop.run_forever()))
    thread.start()
    ready.wait(30)
    try:
        yield f"http://127.0.0.1:{found['port']}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(found["runner"].cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def ask(url: str, texts: list[list[int]], k: int) -> list[list[dict[int, float]]]:
    model = ModelSpec(endpoint=url, model="big", retries=1, pause_s=0.01)
    with open_endpoint(model, {}) as endpoint:
        return endpoint.top_logprobs(texts, k)


def test_an_endpoint_tells_what_the_model_itself_would(folder: Path) -> None:
    base = load_base(f"path:{folder}")
    local = LocalTeacher(transformer_backbone(base.model, {}), 8, base.tokenizer.size, False, 1.0, 64, {})
    strips = [lay(Tokenized("a", [1, 9, 30, 31, 2], [0, 0, 1, 1, 1])), lay(Tokenized("b", [5, 6, 7], [0, 0, 1]))]
    with serve(folder) as url, open_endpoint(ModelSpec(endpoint=url, model="big"), {}) as endpoint:
        remote = RemoteTeacher(endpoint, 8, base.tokenizer.size, {})
        for near, far in zip(local.choose(strips), remote.choose(strips), strict=True):
            np.testing.assert_array_equal(near["id"], far["id"])
            np.testing.assert_allclose(near["logp"], far["logp"], rtol=1e-4, atol=1e-5)


def test_more_tokens_than_the_endpoint_tells_are_refused_with_its_words(folder: Path) -> None:
    with serve(folder) as url, pytest.raises(InvalidInput, match=r"max allowed: 20.*\n.*--max-logprobs"):
        ask(url, [[1, 2, 3]], 64)


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (lambda answer: answer["choices"][0].pop("prompt_logprobs") and answer, InvalidInput, "tells no log-prob"),
        (lambda answer: {"choices": []}, Unavailable, "no completion"),
        (lambda answer: [], Unavailable, "no completion"),
        (lambda answer: {"choices": [{"prompt_logprobs": [None, {"the": {"logprob": -1}}]}]}, Unavailable, "token id"),
        (lambda answer: {"choices": [{"prompt_logprobs": [None, {"1": {"logprob": 2}}]}]}, Unavailable, "logarithms"),
    ],
)
def test_an_answer_of_another_kind_is_refused(
    folder: Path, change: Change, error: type[Exception], reason: str
) -> None:
    with serve(folder, change) as url, pytest.raises(error, match=reason):
        ask(url, [[1, 2, 3]], 4)


def test_a_student_learns_from_an_endpoint_and_asks_it_once(folder: Path, tmp_path: Path) -> None:
    student = make_tiny_base(tmp_path / "student", seed=1)
    rows = [Example(f"e{n}", [Message("user", f"Say {n}"), Message("assistant", "The quick fox")]) for n in range(12)]
    write_examples(tmp_path / "data" / "data" / "train-00000.parquet", rows)

    def train(name: str, tokenizer: Path, url: str) -> list[Event]:
        seen: list[Event] = []
        spec = DistillSpec.model_validate(
            {
                "base": f"path:{student}", "lora": {"rank": 4}, "lr": 1e-2, "epochs": 4, "k": 16, "alpha": 1.0,
                "teacher": {"endpoint": url, "model": "big", "tokenizer": f"path:{tokenizer}"},
            }
        )  # fmt: skip
        job = Job("distill", spec, (Source("", tmp_path / "data"),), tmp_path / name, tmp_path / f"{name}-s", tmp_path)
        run(job, seen.append, open_model=open_judge)
        return seen

    with serve(folder) as url:
        losses = [event.data["divergence"] for event in train("a", folder, url) if event.kind == "train.step"]
        assert losses[-1] < 0.8 * losses[0]
        assert not [event for event in train("b", folder, url) if event.kind == "train.teacher"]
        other = tmp_path / "other"
        save_tokenizer(train_tokenizer(["Cut otherwise. "] * 3, vocabulary=288), other, context_tokens=512)
        with pytest.raises(DigestMismatch, match="another tokenizer"):
            train("c", other, url)
