"""Labelled examples -> strips: which labels there are, what each counts, and the text a head reads.

Knows no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.ids import digest_of
from espalier.core.types import Example, Message
from espalier.store.examples import read_examples
from espalier.tokens.ends import encode_question, lay_ends
from espalier.tokens.pack import Strip
from espalier.tokens.tokenizer import ChatTokenizer
from espalier.train.laying import Laid, Laying, lay_each


def label_of(example: Example, tag: str) -> str:
    """The example's label: its tag, else the assistant's answer; empty when it has neither."""
    if tag in example.tags:
        return example.tags[tag].strip()
    last = example.messages[-1:]
    return last[0].content.strip() if last and last[0].role == "assistant" else ""


def count_labels(folders: Iterable[Path], tag: str) -> Counter[str]:
    """How often each label stands in the train split of these datasets; an example without one is not counted."""
    found = (label_of(example, tag) for folder in folders for example in read_examples(folder, "train"))
    return Counter(label for label in found if label)


def order_labels(counts: Mapping[str, int], wanted: Sequence[str]) -> tuple[str, ...]:
    """The labels in the order of the outputs: as wanted, else sorted. Raises InvalidInput for a set that cannot do."""
    if len(counts) < 2:
        said = f"only the label {next(iter(counts))!r}" if counts else "no label"
        raise InvalidInput(
            f"the dataset has {said}, so there is nothing to tell apart",
            hint="each example needs the tag `label` (a dataset of kind classification has it), or an answer",
        )
    for label in counts if wanted else ():
        if label not in wanted:
            raise InvalidInput(
                f"the label {label!r} is not among `labels`", hint=did_you_mean(label, wanted) or "add it, or drop it"
            )
    return tuple(wanted) or tuple(sorted(counts))


def weigh_labels(
    labels: Sequence[str], counts: Mapping[str, int], *, balance: bool, given: Mapping[str, float]
) -> list[float]:
    """The loss weight of each label. With `balance` total / (n count), of which the mean over examples is 1.

    Raises InvalidInput for a weight of an unknown label.
    """
    for label in given:
        if label not in labels:
            raise InvalidInput(f"there is no label {label!r}", where="label_weights", hint=did_you_mean(label, labels))
    total = sum(counts.values())
    weights = []
    for label in labels:
        count = counts.get(label, 0)
        even = total / (len(labels) * count) if balance and count else 1.0
        weights.append(even * given.get(label, 1.0))
    return weights


def lay_label(
    tokenizer: ChatTokenizer, tag: str, labels: Sequence[str], weights: Sequence[float], *, context_tokens: int
) -> Laying:
    """A strip for each text, whose last token predicts the label's place among `labels`."""
    places = {label: place for place, label in enumerate(labels)}

    def lay(example: Example) -> Laid:
        label = label_of(example, tag)
        if not label:
            return Laid(dropped="no label")
        if label not in places:
            return Laid(dropped="a label that is not among those learnt")
        read = encode_question(tokenizer, question_of(example), context_tokens=context_tokens)
        place = places[label]
        return Laid((lay_ends(example.id, (), [read.ids], [place], [weights[place]]),), cut_tokens=read.cut_tokens)

    def show(strip: Strip) -> str:
        text = tokenizer.decode(strip.ids.tolist(), skip_special=False)
        return f"{text}⟦{name(strip)}⟧"

    def name(strip: Strip) -> str:
        return labels[int(strip.targets[0])]

    settings = digest_of([tag, list(labels), list(weights), context_tokens])
    return lay_each(f"label/1/{settings}", lay, show, answer=name)


def question_of(example: Example) -> Sequence[Message]:
    """What the head reads: the turns before the answer, or the raw text as a user's turn."""
    if not example.messages:
        return [Message("user", example.text)]
    ends_answered = example.messages[-1].role == "assistant"
    return example.messages[:-1] if ends_answered else example.messages
