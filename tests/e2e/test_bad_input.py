"""Bad input at the command line: one clear sentence, a nonzero exit, a next step, and nothing lost."""

from __future__ import annotations

import json
import random
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from espalier.cli.main import main
from espalier.pipeline import run
from espalier.pipeline.executors.inline import InlineExecutor
from espalier.sdk.client import Client
from espalier.services.context import open_context
from espalier.store.workspace import init_workspace
from espalier.testing.tiny import make_tiny_base

Refuse = Callable[..., tuple[int, str]]
_CHAT = '{"messages": [{"role": "user", "content": "Say %d"}, {"role": "assistant", "content": "%d"}]}\n'


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a tiny base and thirty chat examples, built into dataset:chat@v1."""
    folder = tmp_path_factory.mktemp("house")
    init_workspace(folder)
    make_tiny_base(folder / "tiny", seed=1)
    (folder / "chat").mkdir()
    (folder / "chat" / "rows.jsonl").write_text("".join(_CHAT % (i, i) for i in range(30)), "utf-8")
    (folder / "chat.yaml").write_text("name: chat\nsource: {path: chat}\nsteps: []\ntask: {kind: chat}\n", "utf-8")
    (folder / "sft.yaml").write_text("base: path:tiny\nepochs: 1\nlora: {rank: 2}\n", "utf-8")
    with pytest.MonkeyPatch.context() as patch, Client(folder, actor="ada") as client:
        patch.setattr(run, "LocalExecutor", InlineExecutor)
        client.datasets.build(recipe="chat.yaml").wait()
    return folder


def refuse(folder: Path, *words: str, **given: Any) -> tuple[int, str]:
    """(exit code, what was said) by a process of its own, whose steps are processes of theirs."""
    command = [sys.executable, "-m", "espalier.cli.main", *words, "--quiet", "--workspace", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=240, **given)
    return check_refusal(done.returncode, done.stderr)


def check_refusal(code: int, said: str) -> tuple[int, str]:
    """A traceback is never said, and a next step always."""
    assert code != 0
    assert "Traceback" not in said
    assert said.startswith("error: ")
    assert "\nnext: " in said or "\n  next: " in said
    return code, said


@pytest.fixture
def refuse_here(house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """The same in this process, steps included: those that need torch would import it once more each."""
    monkeypatch.setattr(run, "LocalExecutor", InlineExecutor)
    monkeypatch.chdir(house)

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        return check_refusal(main([*words, "--quiet", "--workspace", str(house)]), capsys.readouterr().err)

    return call


def lay_out(folder: Path, digest: str) -> Path:
    """An artifact as a folder."""
    context = open_context(folder)
    try:
        return context.store.artifacts.materialise(digest)
    finally:
        context.close()


def count_artifacts(folder: Path) -> int:
    return sum(1 for path in (folder / ".espalier" / "blobs").rglob("*") if path.is_file())


def test_an_unknown_recipe_key_is_named_with_its_place_and_the_nearest_one(house: Path) -> None:
    (house / "typo.yaml").write_text("base: path:tiny\nlora:\n  rnak: 2\n", "utf-8")
    code, said = refuse(house, "train", "typo.yaml", "--dataset", "chat")
    assert code == 2
    assert "typo.yaml:3:3: lora.rnak: unknown key" in said
    assert "did you mean `rank`?" in said


def test_a_search_between_two_numbers_in_the_wrong_order_is_named_with_its_place(
    house: Path, refuse_here: Refuse
) -> None:
    text = "recipe: train.yaml\nspace:\n  lr: {low: 0.1, high: 0.001}\ntrials: 0\n"
    (house / "search.yaml").write_text(text, "utf-8")
    code, said = refuse_here("train", "search", "search.yaml", "--dataset", "chat")
    assert code == 2
    assert "search.yaml:3:3: space.lr: low must be less than high" in said
    assert "search.yaml:4:1: trials: must be at least 1 (got 0)" in said
    for foreign in ("nput should", "Value error", "Among", "function-", "pydantic"):
        assert foreign not in said


def test_an_empty_folder_is_refused(house: Path, refuse_here: Refuse) -> None:
    (house / "nothing").mkdir(exist_ok=True)
    (house / "empty.yaml").write_text("name: e\nsource: {path: nothing}\ntask: {kind: text}\n", "utf-8")
    code, said = refuse_here("data", "build", "empty.yaml")
    assert code == 2
    assert "nothing" in said


def test_a_corrupt_pdf_among_good_files_is_reported_and_the_rest_is_read(house: Path, refuse_here: Refuse) -> None:
    folder = house / "mixed"
    folder.mkdir(exist_ok=True)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nthis is no PDF\n")
    for i in range(12):
        (folder / f"{i}.md").write_text(f"Note {i}: the gauge in hall {i} was read at {i} bar and is fine.", "utf-8")
    (house / "mixed.yaml").write_text("name: mixed\nsource: {path: mixed}\ntask: {kind: text}\n", "utf-8")
    with Client(house, actor="ada") as client:
        built = client.datasets.build(recipe="mixed.yaml").wait()
        artifact = lay_out(house, next(iter(built.outputs.values())))
        rows = pq.read_table(artifact / "exclusions.parquet").to_pylist()
        assert client.datasets.show(ref="mixed").manifest["documents_read"] == 12
    assert next(row["reason"] for row in rows if row["uri"] == "broken.pdf").startswith("unreadable")


def test_a_line_that_is_no_json_is_named_by_its_number(house: Path) -> None:
    folder = house / "lines"
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text(_CHAT % (1, 1) + _CHAT % (2, 2) + "{not json\n", "utf-8")
    (house / "lines.yaml").write_text(
        "name: lines\nsource: {path: lines, on_error: fail}\nsteps: []\ntask: {kind: chat}\n", "utf-8"
    )
    code, said = refuse(house, "data", "build", "lines.yaml")
    assert code == 2
    assert "rows.jsonl:3" in said


def test_a_dataset_that_would_teach_nothing_is_refused_before_the_first_step(house: Path, refuse_here: Refuse) -> None:
    (house / "short.yaml").write_text("base: path:tiny\nlora: {rank: 2}\ncontext_tokens: 16\n", "utf-8")
    folder = house / "long"
    folder.mkdir(exist_ok=True)
    row = {"messages": [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "ok"}]}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row | {"id": str(i)}) + "\n" for i in range(12)), "utf-8")
    (house / "long.yaml").write_text("name: long\nsource: {path: long}\nsteps: []\ntask: {kind: chat}\n", "utf-8")
    with Client(house, actor="ada") as client:
        client.datasets.build(recipe="long.yaml").wait()
    code, said = refuse_here("train", "short.yaml", "--dataset", "long")
    assert code == 2
    assert "context_tokens" in said


def test_a_base_that_is_not_there_is_named_with_the_path_tried(house: Path, refuse_here: Refuse) -> None:
    (house / "absent.yaml").write_text("base: path:no-such-model\n", "utf-8")
    code, said = refuse_here("train", "absent.yaml", "--dataset", "chat")
    assert code == 3
    assert "no-such-model" in said


def test_an_adapter_is_refused_on_another_base(house: Path, refuse_here: Refuse) -> None:
    from espalier.core.errors import DigestMismatch
    from espalier.nn.adapters import read_adapter
    from espalier.nn.base import load_base

    with Client(house, actor="ada") as client:
        tuned = client.training.tune(recipe="sft.yaml", dataset="chat").wait()
    adapter = lay_out(house, next(iter(tuned.outputs.values())))
    other = make_tiny_base(house / "other", seed=2)
    (house / "evil.yaml").write_text(
        "name: evil\nsteps:\n  v:\n    step: eval.run\n    inputs:\n"
        f"      dataset: dataset:chat@v1\n      adapter: sha256:{adapter.name}\n"
        "    with: {label: x, base: 'path:other', split: train, limit: 2, metrics: [{name: exact_match}]}\n",
        "utf-8",
    )
    code, said = refuse_here("run", "evil.yaml")
    assert code == 4
    assert "base" in said
    with pytest.raises(DigestMismatch):
        read_adapter(adapter, load_base(f"path:{other}"))


def test_a_disk_that_fills_in_mid_write_keeps_what_was_there_and_nothing_half_written(house: Path) -> None:
    folder = house / "big"
    folder.mkdir(exist_ok=True)
    for i in range(10):
        (folder / f"{i}.md").write_text(random.Random(i).randbytes(300_000).hex(" ", 5), "utf-8")
    (house / "big.yaml").write_text("name: big\nsource: {path: big}\nsteps: []\ntask: {kind: text}\n", "utf-8")
    before = count_artifacts(house)

    def little_room() -> None:  # a file may grow to 2 MB, then the write fails: a full disk, as the program sees it
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    copy = shutil.copytree(house, house.parent / "full")
    code, said = refuse(copy, "data", "build", "big.yaml", preexec_fn=little_room)
    assert code == 10
    assert "full" in said or "no space" in said.lower()
    assert count_artifacts(copy) == before
    with Client(copy, actor="ada") as client:
        assert client.datasets.show(ref="chat").version.version == 1
        assert client.datasets.build(recipe="big.yaml").wait().status == "succeeded"


def test_a_port_in_use_is_said(house: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refuse(house, "serve", "--set", f"serve.port={port}")
    assert code == 4
    assert f"127.0.0.1:{port}" in said
