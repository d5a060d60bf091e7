"""Bad input to a training: one clear sentence each, what can be kept is kept and counted, nothing is half-written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from espalier.core.errors import InvalidInput
from espalier.core.events import ignore
from espalier.core.types import Example, Message
from espalier.store.examples import write_examples
from espalier.tokens.tokenizer import ChatTokenizer, load_tokenizer
from espalier.train.corpus import Source
from espalier.train.documents import MixedDocuments, lay_sources
from espalier.train.laying import answers, every_token
from espalier.train.method import Setting
from espalier.train.recipe import SftSpec

Lay = Callable[..., MixedDocuments]
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> ChatTokenizer:
    return load_tokenizer(tiny_base)


@pytest.fixture
def lay(tokenizer: ChatTokenizer, tmp_path: Path) -> Lay:
    """Lay a bad example out beside two good ones (or only what is given)."""

    def do(*examples: Example, alone: bool = False, way: Any = answers, **changes: Any) -> MixedDocuments:
        rows = list(examples) if alone else [good("good-1"), *examples, good("good-2")]
        write_examples(tmp_path / "d" / "data" / "train-00000.parquet", rows)
        chosen = replace(tokenizer, **changes)
        setting = Setting(
            spec=SftSpec(),
            base=SimpleNamespace(tokenizer=chosen),  # type: ignore[arg-type]
            backbone=None,  # type: ignore[arg-type]
            sources=[Source("", tmp_path / "d")],
            context_tokens=200,
            cache_dir=tmp_path / "cache",
            emit=ignore,
        )
        return lay_sources(setting, way(chosen, context_tokens=200))

    return do


def good(id: str) -> Example:
    return Example(id, [Message("user", "Hi"), Message("assistant", "Yes")])


def turns(*roles: str, content: str = "x", weight: float | None = None) -> list[Message]:
    return [Message(role, content, weight if role == "assistant" else None) for role in roles]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (turns("user", "assistant", content=" \n"), "every answer is empty"),
        (turns("user"), "ends on the user's turn, and nothing is answered"),
        (turns("system"), "no assistant's turn"),
        (turns("user", "assistant", weight=-1.0), "a turn has a negative weight"),
        (turns("user", "assistant", weight=math.nan), "a turn's weight is not a finite number"),
        (turns("user", "assistant", weight=0.0), "every answer has weight 0"),
        (turns("user", "assistant", content="a<|im_end|>b"), "a turn spells a special token"),
        ([Message("user", "long " * 300), Message("assistant", "Yes")], "cut off before its answer"),
        ([], "neither messages nor text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_example_nothing_can_be_learnt_from_is_dropped_counted_and_named(
    lay: Lay, messages: Sequence[Message], reason: str
) -> None:
    found = lay(Example("bad", list(messages)))
    assert [found.strip(n).id for n in range(len(found))] == ["good-1", "good-2"]
    ((said, fault),) = found.audit.drops.items()
    assert said.startswith(reason)
    assert (fault.count, fault.first) == (1, ("bad",))
    assert any(line.startswith(f"1 dropped: {reason}") for line in found.audit.warnings)


def test_a_chat_that_ends_on_the_users_turn_keeps_its_answers_and_is_noted(lay: Lay, tokenizer: ChatTokenizer) -> None:
    found = lay(Example("open", turns("user", "assistant", "user")))
    assert found.audit.examples == 3
    ((said, fault),) = found.audit.notes.items()
    assert said.startswith("ends on the user's turn") and fault.first == ("open",)
    assert tokenizer.decode(found.strip(1).targets.tolist(), skip_special=False) == "x<|im_end|>"


def test_an_empty_answer_among_others_is_read_and_not_learnt(lay: Lay, tokenizer: ChatTokenizer) -> None:
    messages = [Message("user", "a"), Message("assistant", ""), Message("user", "b"), Message("assistant", "good")]
    found = lay(Example("gap", messages))
    assert tokenizer.decode(found.strip(1).targets.tolist(), skip_special=False) == "good<|im_end|>"
    assert [fault.first for fault in found.audit.notes.values()] == [("gap",)]


def test_roles_that_do_not_alternate_where_the_template_demands_it_are_named_in_its_words(lay: Lay) -> None:
    found = lay(Example("twice", turns("user", "user", "assistant")), template=ALTERNATING)
    assert found.audit.examples == 2
    assert any("roles must alternate" in reason for reason in found.audit.drops)


def test_the_same_refusal_at_different_turns_is_one_reason(lay: Lay) -> None:
    bad = [Example(f"b{n}", turns(*["user", "assistant"] * n, "user", "user", "assistant")) for n in (1, 2)]
    found = lay(*bad, *[good(f"g{n}") for n in range(3)], template=ALTERNATING)
    assert [fault.count for fault in found.audit.drops.values()] == [2]


def test_a_base_without_a_chat_template_is_refused_for_messages_and_not_for_text(
    lay: Lay,
) -> None:
    for way in (answers, every_token):
        with pytest.raises(InvalidInput, match="no chat template"):
            lay(way=way, template="")
    assert len(lay(Example("t", text="the quick fox"), alone=True, template="")) == 1


def test_a_tokenizer_without_an_end_token_is_refused_unless_its_template_writes_one(
    lay: Lay, tokenizer: ChatTokenizer
) -> None:
    endless = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    endless += "{% if add_generation_prompt %}assistant: {% endif %}"
    with pytest.raises(InvalidInput, match="would never stop"):
        lay(template=endless, special_tokens={})
    assert len(lay(special_tokens={})) == 2


def test_a_dataset_without_the_split_says_which_it_has(lay: Lay, tmp_path: Path) -> None:
    write_examples(tmp_path / "d" / "data" / "test-00000.parquet", [good("t")])
    lay()
    (tmp_path / "d" / "data" / "train-00000.parquet").unlink()
    setting = SimpleNamespace(sources=[Source("", tmp_path / "d")], spec=SftSpec())
    with pytest.raises(InvalidInput, match="the dataset has no train split; it has test"):
        lay_sources(setting, None)  # type: ignore[arg-type]


def test_a_column_with_another_name_is_named_with_the_one_it_is_likest(tmp_path: Path) -> None:
    from espalier.store.examples import read_examples

    path = tmp_path / "data" / "train-00000.parquet"
    write_examples(path, [good("x")])
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([{"messages": "mesages"}.get(name, name) for name in table.column_names]), path)
    with pytest.raises(InvalidInput, match=r"column 'messages' is missing; is 'mesages' meant to be it\?"):
        list(read_examples(tmp_path, "train"))
    pq.write_table(pa.table({"prompt": ["a"], "completion": ["b"]}), path)
    with pytest.raises(InvalidInput, match="column 'id' is missing; it has prompt, completion besides"):
        list(read_examples(tmp_path, "train"))


def test_nothing_is_written_where_a_dataset_is_refused(lay: Lay, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="none of 1 examples"):
        lay(Example("bad", turns("user", "assistant", content="")), alone=True)
    assert not list((tmp_path / "cache").rglob("*.strips"))
