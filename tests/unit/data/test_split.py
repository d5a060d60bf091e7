from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput
from espalier.core.types import Document, Span
from espalier.core.types.examples import Split
from espalier.data.dedup.components import contract
from espalier.data.dedup.words import read_words
from espalier.data.division import Shares, Units, divide, group_units, hash_key, index_known
from espalier.data.flow.batch import to_batch
from espalier.data.flow.files import save_batch, save_batches
from espalier.data.flow.shard import Part, Shard
from espalier.data.flow.spread import run_here
from espalier.data.flow.workers import open_spread
from espalier.data.harvest import Harvest
from espalier.data.split import SplitSpec, draw_splits
from espalier.data.units import name_groups
from espalier.store.examples import SCHEMA, SPLITS

HELD_OUT = {"test": 0, "validation": 1, "train": 2}


@dataclass(frozen=True)
class Unit:
    key: str
    stratum: str = ""


def assign(
    units: Sequence[Unit],
    near: Sequence[tuple[int, int]] = (),
    spec: SplitSpec | None = None,
    previous: Mapping[str, Split] | None = None,
) -> list[Split]:
    spec = spec or SplitSpec()
    numbers = Units(
        np.array([hash_key(unit.key, spec.salt) for unit in units], np.uint64),
        np.arange(len(units), dtype=np.uint64),
        np.array([hash_key(unit.stratum, "") for unit in units], np.uint64),
    )
    shares = Shares(spec.test, spec.validation, bool(spec.stratify_by))
    forest = contract(np.array(near, np.int64).reshape(-1, 2))
    return [SPLITS[index] for index in divide(numbers, forest, shares, index_known(previous or {}, spec.salt))]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))}


def find_pairs(texts: Sequence[str], near: float) -> list[tuple[int, int]]:
    """Every pair that is near enough, by comparing all."""
    sets = [shingles(text) for text in texts]
    return [
        (one, other)
        for other in range(len(sets))
        for one in range(other)
        if len(sets[one] & sets[other]) >= near * len(sets[one] | sets[other])
    ]


def split_texts(rows: list[tuple[str, str]], spec: SplitSpec) -> list[Split]:
    """(key, text) of each example -> its split, near-duplicates found by comparing all."""
    near = find_pairs([text for _, text in rows], spec.near)
    return assign([Unit(key) for key, _ in rows], near, spec)


def units(count: int, stratum: str = "") -> list[Unit]:
    return [Unit(f"{stratum}{number}", stratum) for number in range(count)]


def test_shares_are_about_what_was_asked_for() -> None:
    counts = Counter(assign(units(2000), spec=SplitSpec(test=0.1, validation=0.2)))
    assert abs(counts["test"] - 200) < 45 and abs(counts["validation"] - 400) < 60


@given(st.floats(0.02, 0.45), st.floats(0.02, 0.45), st.text(max_size=5))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_shares_hold_for_any_shares_and_salt(test: float, validation: float, salt: str) -> None:
    counts = Counter(assign(units(3000), spec=SplitSpec(test=test, validation=validation, salt=salt)))
    for split, share in (("test", test), ("validation", validation)):
        assert abs(counts[split] - 3000 * share) < 5 * (3000 * share * (1 - share)) ** 0.5


def test_another_salt_gives_another_division() -> None:
    assert assign(units(200)) != assign(units(200), spec=SplitSpec(salt="b"))


def test_a_keys_place_is_the_same_for_ever() -> None:
    """Datasets built before rest on it: the first bytes of sha256 over salt and key."""
    assert hash_key("T-1", "b") == int(hashlib.sha256(b"b\nT-1").hexdigest()[:16], 16)


def test_a_split_that_was_asked_for_is_not_left_empty_where_there_are_enough_groups() -> None:
    for size in range(3, 40):
        assert set(assign(units(size), spec=SplitSpec(test=0.02, validation=0.02))) == {"train", "validation", "test"}
    assert set(assign(units(50), spec=SplitSpec(test=0, validation=0))) == {"train"}
    assert assign(units(1), spec=SplitSpec(test=0.02)) == ["train"]
    assert assign([]) == []


def alone(key: int) -> str:
    return f"{key} alone {key} stands {key} here {key}"


@given(
    old=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    new=st.lists(st.integers(0, 60), max_size=40),
    twins=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=10),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_growth_moves_nothing_out_of_what_is_held_out(
    old: list[int], new: list[int], twins: list[tuple[int, int]]
) -> None:
    """Not even when what comes joins two groups, and wherever it stands in the order."""
    spec = SplitSpec(test=0.3, validation=0.3)
    before = [(str(key), alone(key)) for key in [*old, 2000, 2006]]  # the last two: test, validation
    joined = [(f"twin{a}-{b}", alone(a)) for a, b in twins] + [(str(b), alone(a)) for a, b in twins]
    after = [*((str(key), alone(key)) for key in new), *joined, *before]
    splits_before = split_texts(before, spec)
    splits_after = split_texts(after, spec)[-len(before) :]
    assert all(HELD_OUT[b] >= HELD_OUT[a] for b, a in zip(splits_before, splits_after, strict=True))
    if not twins:
        assert splits_before == splits_after


def test_units_of_one_key_share_a_split() -> None:
    many = units(50) * 4
    splits = assign(many, spec=SplitSpec(test=0.3, validation=0.3))
    assert all(len({s for u, s in zip(many, splits, strict=True) if u.key == str(key)}) == 1 for key in range(50))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=8),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_groups_are_what_keys_documents_and_likeness_connect(
    rows: list[tuple[int, int]], near: list[tuple[int, int]]
) -> None:
    keys, documents = (np.array(column, np.uint64) for column in zip(*rows, strict=True))
    edges = [(a, b) for a, b in near if a < len(rows) and b < len(rows)]
    groups = group_units(Units(keys, documents, keys * 0), contract(np.array(edges, np.int64).reshape(-1, 2))).tolist()
    joined = [{row} for row in range(len(rows))]  # by merging sets until nothing changes
    links = edges + [
        (a, b) for b in range(len(rows)) for a in range(b) if keys[a] == keys[b] or documents[a] == documents[b]
    ]
    for a, b in links:
        merged = joined[a] | joined[b]
        for row in merged:
            joined[row] = merged
    assert all((groups[a] == groups[b]) == (b in joined[a]) for a in range(len(rows)) for b in range(len(rows)))


def test_near_duplicates_share_a_split_and_so_do_their_near_duplicates() -> None:
    words = [f"w{n}" for n in range(60)]
    chain = [(f"k{step}", " ".join([f"x{n}" for n in range(4 * step)] + words[4 * step :])) for step in range(8)]
    spec = SplitSpec(test=0.4, validation=0.3)
    assert len(set(split_texts(chain, spec))) == 1
    assert len(set(assign([Unit(key) for key, _ in chain], spec=spec))) > 1  # apart, they would be parted


def test_a_small_stratum_gets_its_share() -> None:
    rare = units(30, "rare")
    splits = assign([*units(1000, "common"), *rare], spec=SplitSpec(stratify_by=("format",)))
    for stratum, size in (("common", 1000), ("rare", 30)):
        part = Counter(splits[:1000] if stratum == "common" else splits[1000:])
        assert part["test"] >= size // 10 and part["validation"] >= size // 10


def test_a_single_group_is_trained_on_wherever_its_key_points() -> None:
    for key in range(40):
        assert assign([Unit(f"only {key}")] * 3, spec=SplitSpec(test=0.4, validation=0.4)) == ["train"] * 3
    assert assign([Unit("old")], previous={"old": "test"}) == ["test"]


def test_what_an_earlier_version_held_out_stays_so_with_strata() -> None:
    spec = SplitSpec(test=0.2, validation=0.1, stratify_by=("format",))
    first = [*units(40, "a"), *units(12, "b")]
    splits = dict(zip([u.key for u in first], assign(first, spec=spec), strict=True))
    grown = [*units(90, "a"), *units(50, "b")]
    after = dict(zip([u.key for u in grown], assign(grown, spec=spec, previous=splits), strict=True))
    assert {key: after[key] for key in splits} == splits


def test_an_earlier_version_has_the_last_word_on_a_whole_group() -> None:
    splits = assign([Unit("new"), Unit("old"), Unit("other")], [(0, 1)], SplitSpec(), {"old": "validation"})
    assert splits[:2] == ["validation", "validation"]


# Over shards of a corpus


def harvest(folder: Path, name: str, documents: Sequence[Document], answers: Sequence[str] = ()) -> Harvest:
    """A shard of these documents, one part each, and examples whose tags are the documents'."""
    folder.mkdir(exist_ok=True)
    batches = [to_batch([document]) for document in documents]
    save_batches(folder / f"{name}.parts", batches[0].schema, batches)
    parts = tuple(
        Part(str(folder / f"{name}.parts"), number, document.id, document.span.uri, 1, len(document.text), True)
        for number, document in enumerate(documents)
    )
    rows = [
        {
            "id": f"ex_{document.id}",
            "messages": [{"role": "assistant", "content": answer, "weight": None}] if answer else [],
            "text": document.text,
            "chosen": [],
            "rejected": [],
            "split": "train",
            "documents": [document.id],
            "tags": sorted(document.tags.items()),
        }
        for document, answer in zip(documents, answers or [""] * len(documents), strict=True)
    ]
    save_batch(folder / f"{name}.examples", pa.RecordBatch.from_pylist(rows, SCHEMA))
    return Harvest(Shard(parts, name), name, str(folder / f"{name}.examples"), len(documents))


def row(number: int, text: str, **tags: str) -> Document:
    """A table's row."""
    return Document(f"{'a' * 16}.{number}", text, Span("a" * 64, "rows.csv"), {"line": str(number), **tags})


def draw(
    folder: Path,
    shards: Sequence[Sequence[Document]],
    spec: SplitSpec | None = None,
    previous: Mapping[str, Split] | None = None,
    **more: object,
) -> list[tuple[str, str, str]]:
    """(split, group, stratum) of every row."""
    work = Path(tempfile.mkdtemp(dir=folder))
    harvests = [harvest(folder, f"{work.name}-{number}", shard) for number, shard in enumerate(shards)]
    spread = more.get("spread", run_here)
    drawn = draw_splits(harvests, spec or SplitSpec(), previous or {}, work, spread)  # type: ignore[arg-type]
    return [
        (SPLITS[split], group, stratum)
        for item in drawn
        for split, group, stratum in zip(
            item.splits.tolist(), item.groups.to_pylist(), item.strata.to_pylist(), strict=True
        )
    ]


def test_rows_are_divided_alike_in_any_cut_and_by_any_number_of_workers(tmp_path: Path) -> None:
    rows = [row(number, alone(number % 90)) for number in range(120)]
    whole = draw(tmp_path, [rows])
    assert {split for split, _, _ in whole} == {"train", "validation", "test"}
    assert draw(tmp_path, [rows[:50], rows[50:51], rows[51:]]) == whole
    assert [split for split, _, _ in whole[90:]] == [split for split, _, _ in whole[:30]]  # equal texts


@pytest.mark.slow
def test_two_workers_draw_what_one_draws(tmp_path: Path) -> None:
    rows = [row(number, alone(number % 90)) for number in range(120)]
    with open_spread(2) as spread:
        assert draw(tmp_path, [rows[:60], rows[60:]], spread=spread) == draw(tmp_path, [rows])


def test_rows_that_are_nearly_the_same_share_a_split_across_shards(tmp_path: Path) -> None:
    words = " ".join(f"w{n}" for n in range(60))
    rows = [row(number, f"{words} {number}" if number % 2 else alone(number)) for number in range(60)]
    splits = [split for split, _, _ in draw(tmp_path, [rows[:20], rows[20:]], SplitSpec(test=0.3, validation=0.3))]
    assert len(set(splits[1::2])) == 1 and len(set(splits[::2])) == 3


def test_chunks_of_a_document_share_a_split_and_so_do_documents_of_a_file(tmp_path: Path) -> None:
    """Rows of a table do not, unless they came of one row."""
    documents = [
        Document(
            f"{letter * 16}.{part}.{chunk}", alone(1000 * ord(letter) + 10 * part + chunk), Span(letter * 64, letter)
        )
        for letter in "bcdefghij"
        for part in (1, 2)
        for chunk in (1, 2, 3)
    ]
    children = [
        Document(f"{'a' * 16}.{number}.{child}", alone(100 * number + child), Span("a" * 64, "rows.csv"), {"line": "1"})
        for number in range(1, 30)
        for child in (1, 2)
    ]
    spec = SplitSpec(test=0.3, validation=0.3)
    drawn = draw(tmp_path, [documents[:7], documents[7:], children], spec)
    files: dict[str, set[str]] = {}
    for document, (split, _, _) in zip([*documents, *children], drawn, strict=True):
        source = document.span.uri if "line" not in document.tags else document.id.rpartition(".")[0]
        files.setdefault(source, set()).add(split)
    assert len(files) == 9 + 29 and all(len(splits) == 1 for splits in files.values())
    assert {split for split, _, _ in drawn[-58:]} == {"train", "validation", "test"}


def test_a_row_keeps_its_group_when_its_file_grows(tmp_path: Path) -> None:
    """The file's digest, and with it every id, becomes another."""
    rows = [row(number, alone(number)) for number in range(40)]
    grown = [Document(f"{'f' * 16}.{n}", alone(n), Span("f" * 64, "rows.csv"), {"line": str(n)}) for n in range(60)]
    assert draw(tmp_path, [grown])[:40] == draw(tmp_path, [rows])


def test_a_task_or_a_tag_may_name_the_group(tmp_path: Path) -> None:
    rows = [row(number, alone(number), group=f"T-{number}", customer=f"c{number // 10}") for number in range(80)]
    assert [group for _, group, _ in draw(tmp_path, [rows])] == [f"T-{number}" for number in range(80)]
    drawn = draw(tmp_path, [rows], SplitSpec(test=0.3, validation=0.3, group_by="customer"))
    assert [group for _, group, _ in drawn] == [f"c{number // 10}" for number in range(80)]
    assert all(len({split for split, _, _ in drawn[n : n + 10]}) == 1 for n in range(0, 80, 10))
    assert len({split for split, _, _ in drawn}) == 3


def test_strata_are_tags_labels_folders_and_lengths(tmp_path: Path) -> None:
    documents = [
        Document("a.1", "short", Span("a", "mail/2024/x.eml"), {"format": "eml"}),
        Document("b.1", "long " * 100, Span("b", "y.txt"), {"format": "txt"}),
    ]
    made = [harvest(tmp_path / "h", "one", documents, ['{"team": "billing"}', "no record"])]
    spec = SplitSpec(stratify_by=("format", "label:team", "source", "length"))
    (drawn,) = draw_splits(made, spec, {}, tmp_path, run_here)
    assert drawn.strata.to_pylist() == ["eml|billing|mail/2024|<=250", "txt|||<=1000"]


def test_a_corpus_that_is_not_divided_is_not_searched_for_likeness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(*arguments: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr("espalier.data.split.find_components", search)
    drawn = draw(tmp_path, [[row(n, alone(n % 3)) for n in range(9)]], SplitSpec(test=0, validation=0))
    assert {split for split, _, _ in drawn} == {"train"} and len({group for _, group, _ in drawn}) == 3


def test_nothing_left_to_train_on_is_refused(tmp_path: Path) -> None:
    rows = [row(number, "the same words in every row of this table") for number in range(5)]
    with pytest.raises(InvalidInput, match="no example is left to train on: 5 of 5 are tied together"):
        draw(tmp_path, [rows], previous={group: "test" for _, group, _ in draw(tmp_path, [[rows[0], row(9, "other")]])})


def test_at_near_one_only_equal_words_tie_rows(tmp_path: Path) -> None:
    words = " ".join(f"w{n}" for n in range(60))
    rows = [row(number, f"{words} {number // 2}" + "!" * number) for number in range(60)]
    splits = [
        split for split, _, _ in draw(tmp_path, [rows[:31], rows[31:]], SplitSpec(test=0.3, validation=0.3, near=1))
    ]
    assert splits[::2] == splits[1::2] and len(set(splits)) == 3


def test_dots_in_an_id_that_was_given_from_elsewhere_tie_nothing(tmp_path: Path) -> None:
    rows = [Document(f"v1.2.{n}", alone(n), Span("a" * 64, "rows.csv"), {"line": str(n)}) for n in range(60)]
    drawn = draw(tmp_path, [rows], SplitSpec(test=0.3, validation=0.3))
    assert len({group for _, group, _ in drawn}) == 60 and len({split for split, _, _ in drawn}) == 3


def test_groups_have_the_same_names_whether_words_were_read_before_or_not() -> None:
    documents = to_batch(
        Document(f"{'ab' * 8}.1.{n}", text, Span("b", "a.md")) for n, text in enumerate(("One, two.", "three", ""), 1)
    )
    texts = documents.column("text")
    sources = ["x", "x", "y"]
    names = name_groups(documents.column("tags"), texts, None, sources)
    assert names == name_groups(documents.column("tags"), texts, list(read_words(texts)), sources)
    assert names[0] == names[1] != names[2]
