"""A dataset made by a model behind an endpoint: killed and run again, and answered by our own server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espalier.core.types import Example, Message
from espalier.data.generate.dataset import ANSWERS, PROVENANCE
from espalier.data.layout import read_exclusions
from espalier.sdk.client import Client
from espalier.services.catalogue import publish_dataset
from espalier.services.context import open_context
from espalier.store.examples import read_examples, write_examples
from espalier.store.workspace import init_workspace
from espalier.testing.endpoint import Say, serve_script

_PATIENCE_S = 600
_CONCURRENCY = 2


def make_workspace(folder: Path, examples: list[Example]) -> Path:
    """A workspace with the dataset `source@v1`."""
    init_workspace(folder)
    (folder / ".espalier" / "config.yaml").write_text("serve: {port: 0}\n", "utf-8")
    context = open_context(folder, actor="ada")
    source = folder / "source"
    write_examples(source / "data" / "train-00000.parquet", examples)
    artifact = context.store.artifacts.put("dataset", source, {"name": "source"})
    publish_dataset(context.store, artifact, "source", "ada")
    context.close()
    return folder


def passages(count: int) -> list[Example]:
    text = "Room {} holds the papers of the year {}. It may be entered on working days between nine and five only."
    return [Example(f"p{i}", text=text.format(i, 1900 + i), documents=[f"d{i}"]) for i in range(count)]


def answer(call: dict[str, Any], before: int) -> Say:
    """A question of each room; every third answer is no JSON at first."""
    asked = " ".join(turn["content"] for turn in call["messages"])
    room = int(asked.split("Room ")[1].split(" ")[0])
    if room % 3 == 0 and "cannot be read" not in asked:
        return Say("Sure, here you are:", delay_s=0.05)
    pair = {
        "question": f"Which papers lie in room {room}?",
        "answer": f"Those of {1900 + room}.",
        "quote": f"Room {room}",
    }
    return Say(json.dumps({"pairs": [pair]}), delay_s=0.05)


def write_recipe(folder: Path, url: str, **fields: Any) -> None:
    model = {"endpoint": url, "model": "scripted", "concurrency": _CONCURRENCY, "pause_s": 0.01}
    recipe = {"name": "made", "model": model, "method": {"kind": "questions", "near": 1.0}, **fields}
    (folder / "made.yaml").write_text(json.dumps(recipe), "utf-8")  # JSON is YAML


def command(folder: Path) -> list[str]:
    words = ["data", "generate", "made.yaml", "--dataset", "source", "--json", "--workspace", str(folder)]
    return [sys.executable, "-m", "espalier.cli.main", *words]


def run(folder: Path) -> dict[str, Any]:
    done = subprocess.run(command(folder), cwd=folder, stdout=subprocess.PIPE, check=True, env=environ())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def environ() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_killed_generation_asks_nothing_twice_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    to_be_killed = threading.Event()

    def answer_or_hold(call: dict[str, Any], before: int) -> Say:
        """However late the kill comes, not all is answered."""
        said = answer(call, before)
        return replace(said, delay_s=600) if to_be_killed.is_set() and len(server.requests) > 12 else said

    with serve_script(answer_or_hold) as server:
        calm = make_workspace(tmp_path / "calm", passages(24))
        killed = make_workspace(tmp_path / "killed", passages(24))
        for folder in (calm, killed):
            write_recipe(folder, server.url)
        undisturbed = run(calm)
        assert len(server.requests) == 32  # 24, and 8 once more
        server.requests.clear()

        to_be_killed.set()
        with subprocess.Popen(
            command(killed), cwd=killed, stdout=subprocess.DEVNULL, start_new_session=True, env=environ()
        ) as process:
            deadline = time.monotonic() + _PATIENCE_S
            while len(server.requests) < 10:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        to_be_killed.clear()
        again = run(killed)
        asked = Counter(json.dumps(call) for call in server.requests)
    assert len(asked) == 32
    # An answer that was under way when the process died was nobody's: only those are asked for again.
    assert sum(asked.values()) - len(asked) <= _CONCURRENCY
    assert again["outputs"] == undisturbed["outputs"]


@pytest.mark.slow
def test_answers_kept_in_a_file_serve_a_changed_recipe(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path, passages(6))
    with serve_script(answer) as server:
        for fields, asked, kept in (({}, 8, 6), ({"limit": 4}, 8, 4)):
            write_recipe(folder, server.url, answers="kept/answers.jsonl", **fields)
            with Client(folder, actor="ada") as client:
                run = client.datasets.generate(recipe="made.yaml", dataset="source").wait()
                assert len(server.requests) == asked
                assert client.datasets.show(ref="made").manifest["examples"] == kept
                assert run.status == "succeeded"


@pytest.mark.slow
def test_a_dataset_is_made_by_our_own_server(tmp_path: Path, serving: Any) -> None:
    questions = [
        Example(f"q{i}", [Message("user", f"Where is ticket {i}?"), Message("assistant", "Here.")]) for i in range(3)
    ]
    folder = make_workspace(tmp_path / "own", questions)
    with Client(folder, actor="ada") as client:
        secret = client.keys.create(name="maker", budget_usd="1").secret
        # A worker of the server's might take the run before the command does, and has no MAKER_KEY.
        with serving(folder, "serve.worker=false") as url:
            write_recipe(
                folder,
                f"{url}/v1",
                model={"endpoint": f"{url}/v1", "model": "builtin:seedling", "key_env": "MAKER_KEY"},
                method={"kind": "paraphrase", "count": 1},
                sampling={"max_tokens": 12},
                keep_input=True,
            )
            done = subprocess.run(
                command(folder), cwd=folder, stdout=subprocess.PIPE, check=True, env={**environ(), "MAKER_KEY": secret}
            )
        context = open_context(folder)
        made = context.store.artifacts.materialise(json.loads(done.stdout)["outputs"]["generate.dataset"])
        booked = [row for row in context.store.ledger.list(kind="usage") if row.model]
        context.close()
    # A base this small writes no JSON: what counts is that each question was answered, booked, recorded and told of.
    rows = [json.loads(line) for line in (made / PROVENANCE).read_text("utf-8").splitlines()]
    answers = {json.loads(line)["sha256"] for line in (made / ANSWERS).read_text("utf-8").splitlines()}
    refused = list(read_exclusions(made))
    assert [row["parents"] for row in rows] == [["q0"], ["q1"], ["q2"]]
    assert {row["answer"] for row in rows} <= answers
    assert len(booked) >= 3 and all(row.completion_tokens > 0 for row in booked)
    assert len(refused) + sum(row["verdict"] == "kept" for row in rows) == 3
    assert all(row["reason"] for row in refused)
    assert [example.id for example in read_examples(made)][:3] == ["q0", "q1", "q2"]
    assert secret not in (made / "manifest.json").read_text("utf-8")
