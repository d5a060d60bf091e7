"""One model's whole life, from documents to the trace of an answer, through the faces a user has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from espalier.core.errors import PermissionDenied


@pytest.fixture(scope="module")
def url(released: Any, serving: Any) -> Iterator[str]:
    """The house, served."""
    with serving(released.folder) as url:
        yield url


def espalier(folder: Path, *words: str) -> Any:
    """What a command prints under --json."""
    command = [sys.executable, "-m", "espalier.cli.main", *words, "--json", "--workspace", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_stage_left_its_artifact(house: Any) -> None:
    assert house.run.status == "succeeded"
    assert set(house.run.outputs) == {
        "prompt.prompt", "dataset.dataset", "before.report", "adapter.adapter", "after.report",
        "comparison.comparison", "gate.verdict",
    }  # fmt: skip


def test_a_second_run_is_all_hits_each_with_its_reason(house: Any) -> None:
    again = espalier(house.folder, "run", "support.yaml")
    steps = espalier(house.folder, "runs", "list", "--parent", again["id"], "--limit", "50")
    reused = {step["name"]: step["cache_hit_of"] for step in steps}
    assert {name for name, of in reused.items() if not of} == {"version"}  # a side effect is done every time
    events = [
        event for event in house.client().jobs.logs(id=again["id"], follow=False) if event.kind == "step.finished"
    ]
    assert len(events) == 8
    assert all("same inputs" in event.data["reason"] for event in events if event.data["name"] != "version")
    assert again["outputs"] == house.run.outputs


def test_registering_the_same_parts_again_makes_no_second_version(house: Any) -> None:
    with house.client() as client:
        client.pipelines.run(recipe="support.yaml").wait()
        assert [version.version for version in client.models.list(name="support")] == [1]


def test_who_submitted_a_version_cannot_approve_it(house: Any) -> None:
    with house.client("ada") as client, pytest.raises(PermissionDenied, match="someone else has to approve"):
        client.models.approve(ref="support@v1")


def test_the_openai_client_streams_from_the_alias_and_the_answer_is_traced_to_its_pages(
    released: Any, url: str
) -> None:
    with released.client() as client:
        key = client.keys.create(name="app", budget_usd="1")
        example = client.datasets.show(ref="support", examples=1, split="test").examples[0]
        rendered = client.prompts.render(ref="support-dossier", input=example["messages"][0]["content"])
        messages: Any = [{"role": turn.role, "content": turn.content} for turn in rendered.messages]
        api = openai.OpenAI(base_url=f"{url}/v1", api_key=key.secret)
        ask = {"model": "support@production", "messages": messages, "max_tokens": 8}
        whole = api.chat.completions.create(**ask)
        pieces = list(api.chat.completions.create(**ask, stream=True))
        assert "support@production" in [model.id for model in api.models.list()]
        streamed = "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
        assert streamed == whole.choices[0].message.content
        trace = client.inference.trace(request=pieces[0].id, documents=2)
    kinds = [link.kind for link in trace.links]
    assert kinds[:4] == ["request", "model", "submitted", "approved"]
    pages = [link for link in trace.links if link.kind == "page"]
    assert len(pages) == 2
    assert all(link.label.startswith("tickets/") and ", page 1, characters " in link.label for link in pages)
    trained = {path for path in (released.folder / "tickets").rglob("*") if path.is_file()}
    assert all(released.folder / link.label.split(", page")[0] in trained for link in pages)


def test_what_is_served_is_what_plain_transformers_and_peft_give(released: Any, url: str, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with released.client() as client:
        client.models.export(ref="support@production", folder=str(tmp_path / "adapter"))
        example = client.datasets.show(ref="support", examples=1, split="test").examples[0]
        rendered = client.prompts.render(ref="support-dossier", input=example["messages"][0]["content"])
        messages: Any = [{"role": turn.role, "content": turn.content} for turn in rendered.messages]
        key = client.keys.create(name="parity")
        api = openai.OpenAI(base_url=f"{url}/v1", api_key=key.secret)
        ask = {"model": "support@production", "messages": messages, "max_tokens": 12}
        served = api.chat.completions.create(**ask).choices[0].message.content
    tokenizer = AutoTokenizer.from_pretrained(released.folder / "tiny")
    base = AutoModelForCausalLM.from_pretrained(released.folder / "tiny", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter")
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        tokens = model.generate(**prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True) == served
