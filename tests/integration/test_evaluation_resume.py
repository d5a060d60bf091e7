"""An evaluation killed in the middle, for real: what was answered stays answered."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from espalier.evals.cases import read_evaluation

_PROGRAM = """
import sys, time
from pathlib import Path
from espalier.core.types import Example, Generation, Message, Usage
from espalier.evals.cases import write_evaluation
from espalier.metrics.text import exact_match
from espalier.evals.run import Subject, evaluate

folder, slow = Path(sys.argv[1]), sys.argv[2] == "slow"
asked = (folder / "asked.txt").open("a")

def generate(batch, sampling):
    for messages in batch:
        print(messages[-1].content, file=asked, flush=True)
    if slow and batch[0][0].content == "q6":
        print("half way", flush=True)
        time.sleep(600)
    return [Generation(text="a" + messages[-1].content[1:], finish_reason="stop",
                       usage=Usage(prompt_tokens=1, completion_tokens=1)) for messages in batch]

rows = [Example(id=f"e{i:02d}", messages=[Message("user", f"q{i}"), Message("assistant", f"a{i}")]) for i in range(12)]
journal = folder / "answers.jsonl"
found = evaluate(rows, generate, [exact_match()], Subject("s", "l", "d"), batch_size=3, journal=journal)
write_evaluation(folder / "report", found)
"""


def test_a_killed_evaluation_asks_again_only_what_was_under_way(tmp_path: Path) -> None:
    killed, quiet = tmp_path / "killed", tmp_path / "quiet"
    killed.mkdir(), quiet.mkdir()
    command = [sys.executable, "-c", _PROGRAM]
    with subprocess.Popen([*command, str(killed), "slow"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "half way\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    for folder in (killed, quiet):
        subprocess.run([*command, str(folder), "fast"], check=True)
    asked = (killed / "asked.txt").read_text().split()
    assert asked == [f"q{i}" for i in (*range(9), *range(6, 12))]  # q6 to q8 were under way
    for file in ("report.json", "cases.jsonl"):
        assert (killed / "report" / file).read_bytes() == (quiet / "report" / file).read_bytes()
    assert read_evaluation(killed / "report").report.score("exact_match").value == 1.0
