"""Examples asked through a prompt version: the one place where data and prompt meet, for training and evaluation alike.

A dataset holds raw questions, so that the prompt can change while the data stays; what a model learns and what it is
later asked are then the same text by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from espalier.core.types import Example, Prompt
from espalier.prompts.template import render_case
from espalier.store.examples import SPLITS, read_examples, write_examples


def render_example(example: Example, prompt: Prompt | None) -> Example:
    """The example with its question asked through `prompt`, a preference pair's too; raw text stays as it is."""
    if prompt is None or not example.messages:
        return example
    if example.chosen:
        answered = replace(example, messages=[*example.messages, *example.chosen[:1]])
        return replace(example, messages=render_case(prompt, answered))
    return replace(example, messages=[*render_case(prompt, example), example.messages[-1]])


def render_dataset(dataset: Path, prompt: Prompt | None, folder: Path) -> Path:
    """The dataset with every question asked through `prompt`, written to `folder`; without a prompt, the dataset."""
    if prompt is None:
        return dataset
    for split in SPLITS:
        write_examples(folder / "data" / f"{split}-00000.parquet", _render_split(dataset, split, prompt))
    return folder


def _render_split(dataset: Path, split: str, prompt: Prompt) -> Iterator[Example]:
    for example in read_examples(dataset, split):
        yield render_example(example, prompt)
