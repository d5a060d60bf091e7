"""Real English for the curriculum, read from a folder of public corpora; whatever of it is not there is left out.

Read here: gsm8k (MIT), self-instruct (Apache-2.0), PEPs (public domain or CC0), tinyshakespeare (public domain),
banking77 (CC-BY-4.0). Knows their file names and nothing else of the machine.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PASSAGE_CHARS = 900


@dataclass(slots=True)
class English:
    """Passages to read on, questions with their answers, and utterances with the intent they were filed under."""

    passages: list[str] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)
    intents: list[tuple[str, str]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)  # short ones out of the passages, for distraction

    @property
    def intent_names(self) -> list[str]:
        return sorted({intent for _, intent in self.intents})


def read_english(corpora: Sequence[Path]) -> English:
    """All that the given roots hold; a root is a folder with one folder a corpus."""
    english = English()
    for root in corpora:
        english.passages += [*_read_peps(root / "peps"), *_read_plays(root / "tinyshakespeare")]
        english.answers += [*_read_sums(root / "gsm8k"), *_read_instructions(root / "self-instruct")]
        english.intents += _read_intents(root / "banking77")
    for passage in english.passages:
        english.sentences += [
            text for text in re.split(r"(?<=[.!?])\s+", passage.replace("\n", " ")) if 25 < len(text) < 110
        ]
    return english


def _read_sums(folder: Path) -> Iterator[tuple[str, str]]:
    path = folder / "train.jsonl.gz"
    if not path.exists():
        return
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["question"], re.sub(r"<<.*?>>", "", row["answer"]).replace("#### ", "Answer: ")


def _read_instructions(folder: Path) -> Iterator[tuple[str, str]]:
    for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        if not (folder / name).exists():
            continue
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            instance = row["instances"][0]
            question = f"{row['instruction']}\n{instance['input']}".strip()
            if len(question) < _PASSAGE_CHARS and 0 < len(instance["output"]) < _PASSAGE_CHARS:
                yield question, instance["output"].strip()


def _read_plays(folder: Path) -> Iterator[str]:
    path = folder / "input.txt"
    if path.exists():
        yield from _pack(path.read_text(encoding="utf-8").split("\n\n"))


def _read_peps(folder: Path) -> Iterator[str]:
    for archive in sorted(folder.glob("*.tar.gz")):
        with tarfile.open(archive) as members:
            for member in members:
                stream = members.extractfile(member) if member.name.endswith(".rst") else None
                if stream is not None:
                    paragraphs = stream.read().decode("utf-8", "replace").split("\n\n")
                    yield from _pack([text for text in paragraphs if _is_prose(text)])


def _read_intents(folder: Path) -> Iterator[tuple[str, str]]:
    path = folder / "train.csv"
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            yield " ".join(row["text"].split()), row["category"].replace("_", " ").rstrip("?").lower()


def _is_prose(paragraph: str) -> bool:
    """Letters and spaces, not a table, a listing or a header."""
    plain = sum(char.isalpha() or char == " " for char in paragraph)
    return len(paragraph) > 60 and plain > 0.85 * len(paragraph) and not paragraph.startswith((" ", "..", "|", "+"))


def _pack(paragraphs: Sequence[str]) -> Iterator[str]:
    """Paragraphs joined until a passage is about `_PASSAGE_CHARS` long; a longer paragraph is cut."""
    held: list[str] = []
    length = 0
    for paragraph in paragraphs:
        text = paragraph.strip()[:_PASSAGE_CHARS]
        if held and length + len(text) > _PASSAGE_CHARS:
            yield "\n\n".join(held)
            held, length = [], 0
        held.append(text)
        length += len(text)
    if held:
        yield "\n\n".join(held)
