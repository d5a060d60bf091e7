"""A user's function does what it says, and whatever else it does stays in its process."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow as pa
import pytest

from espalier.core.errors import InvalidInput, NotFound, Unavailable
from espalier.core.types import Document, Span
from espalier.data.clean import sandbox
from espalier.data.clean.python import PythonSpec, PythonStep, prepare
from espalier.data.flow.batch import SCHEMA, to_batch
from espalier.data.flow.outcome import Outcome, apply_outcome


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    before = running_children()  # a pool of other tests may have left its fork server
    yield
    assert list(folder.iterdir()) == []
    assert not running_children() - before


def running_children() -> set[psutil.Process]:
    return {process for process in psutil.Process().children(recursive=True) if is_running(process)}


def is_running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended since it was listed
        return False


def make(folder: Path, code: str, **spec: Any) -> PythonStep:
    (folder / "my_steps.py").write_text(code)
    return prepare(PythonSpec.model_validate({"file": "my_steps.py", **spec}), folder)


def is_isolating(folder: Path) -> bool:
    """Whether this system lets a process give up its network and the sight of others."""
    try:
        make(folder, "def clean(row): return row", isolation="required").apply(batch_of("a"))
    except Unavailable:
        return False
    return True


def batch_of(*texts: str, **tags: str) -> pa.RecordBatch:
    return to_batch([Document(f"d{n}", text, Span("0" * 64, "u"), tags) for n, text in enumerate(texts)])


def reasons(outcome: Outcome) -> list[str | None]:
    assert outcome.reasons is not None
    return outcome.reasons.to_pylist()


def test_a_row_is_rewritten_tagged_kept_or_dropped(tmp_path: Path) -> None:
    code = """
import re

def clean(row, word):
    text = row["text"]
    if text == "none":
        return None
    if text == "drop":
        return {"drop": "a reason"}
    if text == "tag":
        return {"tags": {"length": len(text), "format": "other"}}
    if text == "same":
        return row
    if text == "talk":
        return {"messages": [{"role": "user", "content": "hello", "weight": None}]}
    return re.sub("a+", word, text)
"""
    batch = batch_of("none", "drop", "tag", "same", "talk", "baab", format="txt")
    outcome = make(tmp_path, code, arguments={"word": "X"}).apply(batch)
    assert reasons(outcome) == ["clean: dropped", "clean: a reason", None, None, None, None]
    rows = apply_outcome(batch, outcome).to_pylist()
    assert [row["text"] for row in rows] == ["tag", "same", "talk", "bXb"] and outcome.counts == {"changed": 1}
    assert rows[0]["tags"] == [("format", "other"), ("length", "3")] and rows[1]["tags"] == [("format", "txt")]
    assert rows[2]["messages"] == [{"role": "user", "content": "hello", "weight": None}] and rows[3]["messages"] == []


def test_a_batch_is_given_back_with_fewer_rows_and_other_texts(tmp_path: Path) -> None:
    code = """
import pyarrow.compute as pc

def clean(batch):
    batch = batch.filter(pc.greater(pc.utf8_length(batch.column("text")), 2))
    return batch.set_column(1, "text", pc.utf8_upper(batch.column("text")))
"""
    batch = batch_of("one", "no", "three")
    outcome = make(tmp_path, code, takes="batch").apply(batch)
    assert reasons(outcome) == [None, "clean: left out", None] and outcome.parents.to_pylist() == [0, 2]
    assert outcome.batch.column("text").to_pylist() == ["ONE", "THREE"] and outcome.batch.schema == SCHEMA
    assert outcome.counts == {"changed": 2}


def test_an_error_names_the_line_the_document_and_what_to_do(tmp_path: Path) -> None:
    code = (
        "def clean(row):\n    return helper(row['text'])\n\ndef helper(text):\n    return 'x' + 1 / (len(text) - 1)\n"
    )
    with pytest.raises(InvalidInput) as caught:
        make(tmp_path, code).apply(batch_of("long", "a"))
    assert "clean failed on document d0: TypeError" in caught.value.message
    assert caught.value.where == "my_steps.py:5" and "on_error: drop" in caught.value.hint
    dropped = make(tmp_path, code, on_error="drop").apply(batch_of("a"))
    assert reasons(dropped) == ["clean failed: my_steps.py:5: ZeroDivisionError: division by zero"]


def test_a_wrong_answer_is_refused(tmp_path: Path) -> None:
    told = {
        "42": "it returned int",
        "{'text': 3}": "`text` is int",
        "{'txt': 'a'}": "`txt` is str",
        "{'id': 'other'}": "another `id`",
        "{'drop': 1}": "`drop` is int",
        "{'messages': [{'role': 1}]}": "`messages` holds {'role': 1}",
        "sys.exit(0)": "SystemExit",
    }
    code = "import sys\n\ndef clean(row):\n    return eval(row['text'])\n"
    outcome = make(tmp_path, code, on_error="drop").apply(batch_of(*told))
    for reason, expected in zip(reasons(outcome), told.values(), strict=True):
        assert (reason or "").startswith("clean failed: my_steps.py") and expected in (reason or "")


@pytest.mark.parametrize(
    "answer", ["'text'", "batch.select(['id'])", "batch.take([1, 0])", "batch.take([0, 0])", "None"]
)
def test_a_wrong_batch_is_refused(answer: str, tmp_path: Path) -> None:
    step = make(tmp_path, f"def clean(batch):\n    return {answer}\n", takes="batch", on_error="drop")
    outcome = step.apply(batch_of("a", "b"))
    assert [(reason or "")[:13] for reason in reasons(outcome)] == ["clean failed:"] * 2


def test_an_endless_loop_is_ended_and_the_other_rows_go_on(tmp_path: Path) -> None:
    code = "def clean(row):\n    while row['text'] == 'loop':\n        pass\n    return row['text'] + '!'\n"
    outcome = make(tmp_path, code, limit_s=1.5, on_error="drop").apply(batch_of("a", "loop", "b"))
    assert reasons(outcome) == [None, "clean took too long: my_steps.py: more than 1.5 s", None]
    assert outcome.texts.to_pylist() == ["a!", "loop", "b!"]


def test_time_in_which_the_machine_stood_still_is_not_the_function_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=5.0)  # each look at it five seconds later than the one before
    monkeypatch.setattr(sandbox, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    code = "import time\n\ndef clean(row):\n    time.sleep(0.3)\n    return row['text'] + '!'\n"
    assert make(tmp_path, code, limit_s=10).apply(batch_of("a")).texts.to_pylist() == ["a!"]


def test_a_crash_is_one_document_s_and_a_memory_hog_hits_its_limit(tmp_path: Path) -> None:
    code = (
        "import os, ctypes\n\ndef clean(row):\n    text = row['text']\n    if text == 'exit':\n        os._exit(3)\n"
        "    if text == 'segfault':\n        ctypes.string_at(0)\n    if text == 'hog':\n"
        "        return 'x' * (1 << 30)\n    return text\n"
    )
    step = make(tmp_path, code, limit_mb=128, on_error="drop")
    told = reasons(step.apply(batch_of("a", "exit", "b", "segfault", "hog", "c")))
    assert [told[0], told[2], told[5]] == [None] * 3
    assert told[1] == "clean crashed: my_steps.py: ended with exit code 3"
    assert (told[3] or "").startswith("clean crashed: my_steps.py: ended ")
    assert told[4] == "clean failed: my_steps.py:10: MemoryError"


def test_a_function_that_always_crashes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.data.clean.python.MAX_DEATHS", 1)
    step = make(tmp_path, "import os\n\ndef clean(row):\n    os._exit(1)\n", on_error="drop")
    with pytest.raises(InvalidInput, match="ended its process 2 times"):
        step.apply(batch_of(*"abcdef"))


def test_noise_on_the_pipes_does_no_harm(tmp_path: Path) -> None:
    code = (
        "import os, sys\n\nprint('loading')\n\ndef clean(row):\n    print('x' * 100_000)\n"
        "    sys.stderr.write('y' * 100_000)\n    os.write(1, b'z')\n    assert sys.stdin.read() == ''\n"
        "    return 'ok'\n"
    )
    assert make(tmp_path, code).apply(batch_of("a", "b")).texts.to_pylist() == ["ok", "ok"]


def test_it_sees_no_secret_no_file_of_ours_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_TEST_SECRET", "hush")
    code = """
import os, socket

def clean(row):
    try:
        socket.create_connection(("127.0.0.1", PORT), 2).close()
        reached = "reached"
    except OSError:
        reached = "no network"
    open("here.txt", "w").write("x")
    return " ".join([str("ESPALIER_TEST_SECRET" in os.environ), str(sorted(os.listdir("."))), reached])
"""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        step = make(tmp_path, code.replace("PORT", str(server.getsockname()[1])))
        [told] = step.apply(batch_of("a")).texts.to_pylist()
    assert told.startswith("False ['here.txt'] ")
    if not is_isolating(tmp_path):
        pytest.skip("this system lets no process give up its network")
    assert told.endswith("no network")


def test_it_may_write_no_large_file_and_use_no_more_time_than_all_rows_may(tmp_path: Path) -> None:
    code = (
        "from resource import RLIMIT_CORE, RLIMIT_CPU, RLIMIT_FSIZE, getrlimit\n\n\ndef clean(row):\n"
        "    return ' '.join(str(getrlimit(kind)[1]) for kind in (RLIMIT_FSIZE, RLIMIT_CPU, RLIMIT_CORE))\n"
    )
    outcome = make(tmp_path, code, limit_s=2.5, limit_mb=64).apply(batch_of("a", "b"))
    assert outcome.texts.to_pylist() == [f"{64 << 20} {3 * 2 + 60} 0"] * 2


def test_what_it_starts_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n\ndef clean(row):\n"
        f"    sleep = [sys.executable, '-c', 'import time; time.sleep(600)', {tmp_path.name!r}]\n"
        f"    subprocess.Popen(sleep, start_new_session={is_isolating(tmp_path)})\n"
        "    return 'ok'\n"
    )
    make(tmp_path, code, isolation="wanted").apply(batch_of("a"))
    deadline = time.monotonic() + 60
    while left := [p.pid for p in psutil.process_iter(["cmdline"]) if tmp_path.name in (p.info["cmdline"] or [])]:
        assert time.monotonic() < deadline, left


def test_nothing_is_remembered_from_one_batch_to_the_next_and_chance_is_the_same(tmp_path: Path) -> None:
    code = """
import random

seen = []

def clean(row):
    seen.append(1)
    return f"{len(seen)} {random.random()} {hash('a')}"
"""
    step = make(tmp_path, code)
    first, second = (step.apply(batch_of("a", "b")).texts.to_pylist() for _ in range(2))
    assert first == second and first[0].startswith("1 ") and first[1].startswith("2 ")


def test_many_rows_go_in_groups_and_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "GROUP_ROWS", 7)
    monkeypatch.setattr(sandbox, "GROUP_BYTES", 40)
    code = (
        "import os\n\ndef clean(row):\n    if row['text'] in ('t0', 't13'):\n        os._exit(1)\n"
        "    return row['text'].upper()\n"
    )
    texts = [f"t{n}" for n in range(50)]
    outcome = make(tmp_path, code, on_error="drop").apply(batch_of(*texts))
    crashed = {0, 13}
    assert outcome.texts.to_pylist() == [t if n in crashed else t.upper() for n, t in enumerate(texts)]
    assert [n for n, reason in enumerate(reasons(outcome)) if reason] == sorted(crashed)


@pytest.mark.parametrize(
    ("code", "where", "told"),
    [
        ("def clean(row:\n  pass", "my_steps.py:1", "SyntaxError"),
        ("import no_such_module", "my_steps.py:1", "ModuleNotFoundError"),
        ("def other(row): pass", "my_steps.py", "no function `clean`; there is: other"),
        ("import os\nos._exit(4)", "my_steps.py", "exit code 4"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused(code: str, where: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(tmp_path, code, on_error="drop").apply(batch_of("a"))
    assert caught.value.where == where and told in caught.value.message


def test_a_file_that_is_absent_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        prepare(PythonSpec(file="absent.py"), tmp_path)
    (tmp_path / "latin.py").write_bytes(b"# \xff")
    with pytest.raises(InvalidInput):
        prepare(PythonSpec(file="latin.py"), tmp_path)


def test_no_rows_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", None)
    assert make(tmp_path, "broken(").apply(batch_of()).counts == {}
