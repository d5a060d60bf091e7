from __future__ import annotations

import random
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.data.dedup.conftest import WORDS, Decide, cut, make_text, substitute

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.dedup import bands
from espalier.data.dedup.bands import choose_banding
from espalier.data.dedup.step import STEP, Deduplication, DedupSpec
from espalier.data.flow.workers import open_spread

SHARE = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shingles(text: str, size: int = 3) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[n : n + size]) for n in range(max(1, len(words) - size + 1))} if words else set()


def jaccard(one: str, other: str) -> float:
    left, right = shingles(one), shingles(other)
    return len(left & right) / len(left | right) if left and right else 0.0


def judge(texts: list[str], near: float) -> list[str | None]:
    """The definition, by comparing all: equal words first, then the first kept row that is near enough."""
    reasons: list[str | None] = []
    first: dict[str, int] = {}
    kept: list[int] = []
    for row, text in enumerate(texts):
        normal = " ".join(re.findall(r"\w+", text.lower())) or f"?{text}"
        if normal in first:
            reasons.append(f"exact duplicate of doc.{first[normal]} (file-{first[normal]}.txt)")
            continue
        first[normal] = row
        alike = [(other, jaccard(text, texts[other])) for other in kept]
        near_rows = [(other, value) for other, value in alike if value >= near]
        if near_rows:
            other, value = near_rows[0]
            reasons.append(f"near duplicate of doc.{other} (file-{other}.txt), Jaccard {value:.2f}")
        else:
            reasons.append(None)
            kept.append(row)
    return reasons


def make_corpus(seed: int, count: int = 60) -> list[str]:
    """Texts, copies of some with words replaced, copies of copies, equal ones, short and empty ones."""
    random_ = random.Random(seed)
    texts = ["", "one", "One!", "?!"]
    for _ in range(count):
        kind = random_.random()
        if kind < 0.4:
            texts.append(make_text(random_, random_.choice((5, 30, 80))))
        elif kind < 0.5:
            texts.append(random_.choice(texts).upper())
        else:
            source = random_.choice(texts)
            texts.append(substitute(source, min(len(source.split()), random_.choice((1, 1, 1, 2, 4))), random_))
    return texts


@pytest.mark.parametrize("near", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_dropped_is_what_comparing_all_drops(decide: Decide, near: float, seed: int) -> None:
    texts = make_corpus(seed)
    expected = judge(texts, near)
    assert decide(texts, DedupSpec(near=near)) == expected
    assert {"None", "exact"} <= {str(reason).split()[0] for reason in expected}


@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
@settings(SHARE, max_examples=15)
def test_how_the_corpus_is_cut_changes_nothing(decide: Decide, seed: int, sizes: list[int]) -> None:
    texts = make_corpus(seed, 40)
    assert decide(texts, sizes=sizes) == decide(texts, sizes=[1000])


def test_ranges_of_keys_in_files_change_nothing(decide: Decide, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = make_corpus(7, 200)
    whole = decide(texts)
    monkeypatch.setattr("espalier.data.dedup.partition._ROWS_IN_RANGE", 30)
    assert decide(texts) == whole and any(whole)


@pytest.mark.slow
def test_two_workers_change_nothing(decide: Decide) -> None:
    texts = make_corpus(8, 200)
    with open_spread(2) as spread:
        assert decide(texts, spread=spread) == decide(texts)


def test_nine_hundred_and_eighty_of_a_thousand_planted_duplicates_are_found(decide: Decide) -> None:
    """Copies at a Jaccard index from 0.8 to 1, and others just below, which must stay."""
    random_ = random.Random(1)
    texts, planted, below = [], [], []
    while len(planted) < 1000:
        text = make_text(random_, 120)
        copy = substitute(text, random_.randrange(1, 7), random_)
        (planted if jaccard(text, copy) >= 0.8 else below).append(len(texts) + 1)
        texts += [text, copy]
    reasons = decide(texts, sizes=[500])
    found = [row for row, reason in enumerate(reasons) if reason]
    assert set(found) <= set(planted) and len(below) > 50
    assert len(found) >= 980
    measured = [float(reasons[row].rsplit(" ", 1)[1]) for row in found]  # type: ignore[union-attr]
    assert measured == [round(jaccard(texts[row - 1], texts[row]), 2) for row in found] and min(measured) < 0.82


@pytest.mark.parametrize("near", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_bands_miss_a_pair_at_the_threshold_as_rarely_as_promised(near: float) -> None:
    banding = choose_banding(near)
    assert (1 - near**banding.rows) ** banding.count <= bands.MISS
    assert banding.rows * banding.count <= bands.PERMUTATIONS


def test_signatures_agree_as_often_as_the_sets_overlap() -> None:
    """What MinHash rests on: a permutation's least shingle is shared with a probability of the Jaccard index."""
    random_ = random.Random(2)
    texts = [make_text(random_, 200)]
    texts.append(substitute(texts[0], 12, random_))
    banding = bands.Banding(1, 4000)
    batch = pa.array(texts, pa.large_string())
    from espalier.data.dedup.words import read_words

    (words,) = read_words(batch)
    keys = banding.sign(words, 3)
    shared = float((keys[:, 0] == keys[:, 1]).mean())
    assert abs(shared - jaccard(*texts)) < 0.03


# Large buckets


def test_a_bucket_of_many_copies_of_few_texts_is_judged_as_comparing_all_judges(decide: Decide) -> None:
    random_ = random.Random(3)
    templates = [make_text(random_, 40) for _ in range(3)]
    texts = [substitute(random_.choice(templates), 1, random_) for _ in range(150)]
    reasons, expected = decide(texts, sizes=[50]), judge(texts, 0.8)
    assert [bool(reason) for reason in reasons] == [bool(reason) for reason in expected]


def test_rows_that_share_a_template_but_differ_enough_are_kept_without_comparing_all(
    decide: Decide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a Jaccard index of about 0.6 a thousand rows share bands; only some of their pairs are measured."""
    random_ = random.Random(4)
    template = make_text(random_, 60)
    texts = [f"{template} {make_text(random_, 20)}" for _ in range(1200)]
    texts += [substitute(texts[n], 1, random_) for n in range(0, 300, 3)]
    measured = 0
    from espalier.data.dedup import verify

    measure = verify.measure

    def count(search: object, shard: int, pairs: np.ndarray) -> np.ndarray:
        nonlocal measured
        measured += len(pairs)
        return measure(search, shard, pairs)  # type: ignore[arg-type]

    monkeypatch.setattr(verify, "measure", count)
    reasons = decide(texts, sizes=[200])
    assert not any(reasons[:1200])
    assert sum(map(bool, reasons[1200:])) >= 95
    assert measured < 0.25 * len(texts) ** 2 / 2


def test_a_hundred_thousand_equal_rows_are_one_group(tmp_path: Path) -> None:
    survey = Deduplication(DedupSpec(), tmp_path)
    shard = cut(["the same words again and again"] * 20_000, [20_000])[0]
    sketch = survey.sketch(shard)
    decisions = list(survey.decide([sketch] * 5, [shard] * 5, tmp_path))
    dropped = [len(decision) - decision.column("reason").null_count for decision in decisions]
    assert dropped == [19_999, *[20_000] * 4]


# Earlier versions


def write_version(folder: Path, texts: list[str]) -> None:
    folder.mkdir()
    rows = [{"id": f"old.{n}", "text": text, "spans": [{"uri": f"{n}.txt"}]} for n, text in enumerate(texts)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet", row_group_size=3)


def test_what_an_earlier_version_holds_is_dropped_and_named(decide: Decide, tmp_path: Path) -> None:
    random_ = random.Random(5)
    old = [make_text(random_) for _ in range(8)]
    old.append(old[7])  # what an earlier version holds twice is its own affair
    write_version(tmp_path / "support-v1", old)
    new = make_text(random_)
    near = substitute(old[4], 1, random_)
    reasons = decide([new, old[7].title(), near, new, new], DedupSpec(against=("support-v1",)), sizes=[2])
    assert reasons == [
        None,
        "exact duplicate of old.7 (support-v1/7.txt)",
        f"near duplicate of old.4 (support-v1/4.txt), Jaccard {jaccard(near, old[4]):.2f}",
        "exact duplicate of doc.0 (file-0.txt)",
        "exact duplicate of doc.0 (file-0.txt)",
    ]


def test_an_earlier_version_of_conversations_is_compared_by_its_turns(decide: Decide, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "How do I reset it?"}, {"role": "assistant", "content": "Press the button."}]
    (tmp_path / "chat" / "data").mkdir(parents=True)
    rows = pa.Table.from_pylist([{"id": "ex.1", "text": "", "messages": turns}])
    pq.write_table(rows, tmp_path / "chat" / "data" / "train-00000.parquet")
    reasons = decide(["how do i reset it?\n\npress the button"], DedupSpec(against=("chat",)))
    assert reasons == ["exact duplicate of ex.1 (chat)"]


def test_a_document_that_reads_as_its_example_is_known_by_the_example(decide: Decide, tmp_path: Path) -> None:
    """A version of plain texts keeps each text once, in its examples."""
    text = make_text(random.Random(15))
    (tmp_path / "plain" / "data").mkdir(parents=True)
    documents = [{"id": "a.1", "text": None, "spans": [{"uri": "a.txt"}]}, {"id": "a.2", "text": "x y", "spans": []}]
    schema = pa.schema(
        [("id", pa.string()), ("text", pa.large_string()), ("spans", pa.list_(pa.struct([("uri", pa.string())])))]
    )
    pq.write_table(pa.Table.from_pylist(documents, schema), tmp_path / "plain" / "documents-00000.parquet")
    pq.write_table(pa.table({"id": ["ex_a.1"], "text": [text]}), tmp_path / "plain" / "data" / "train-00000.parquet")
    reasons = decide([text, "x, y", ""], DedupSpec(against=("plain",)))
    assert reasons == ["exact duplicate of ex_a.1 (plain)", "exact duplicate of a.2 (plain)", None]


def test_what_is_no_version_is_refused(decide: Decide, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no dataset version in"):
        decide(["a"], DedupSpec(against=("nowhere",)))
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InvalidInput, match="no columns `id` and `text`"):
        decide(["a"], DedupSpec(against=("other.parquet",)))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InvalidInput, match="no Parquet file"):
        decide(["a"], DedupSpec(against=("torn.parquet",)))


def test_counts_say_how_many_of_each_kind(tmp_path: Path) -> None:
    survey = STEP.prepare(DedupSpec(), tmp_path)
    random_ = random.Random(6)
    text = make_text(random_)
    (shard,) = cut([text, text, substitute(text, 1, random_), " ".join(WORDS[:9])], [9])
    (decision,) = survey.decide([survey.sketch(shard)], [shard], tmp_path)
    outcome = survey.apply_decision(shard, decision)
    assert outcome.counts == {"exact": 1, "near": 1}


def test_nothing_at_all_is_no_duplicate(decide: Decide, tmp_path: Path) -> None:
    assert decide([]) == []
    assert list(Deduplication(DedupSpec(near=1), tmp_path).decide([], [], tmp_path)) == []


def test_a_shard_of_which_nothing_is_left_is_passed_over(tmp_path: Path) -> None:
    survey = Deduplication(DedupSpec(), tmp_path)
    (full,) = cut(["a b c d e", "A b c, d e", "something else"], [3])
    shards = [full.slice(0, 0), full, full.slice(0, 0)]
    decisions = list(survey.decide([survey.sketch(shard) for shard in shards], shards, tmp_path))
    assert [len(decision) for decision in decisions] == [0, 3, 0]
    assert decisions[1].column("reason").null_count == 2


def test_near_one_drops_equal_words_only(decide: Decide) -> None:
    texts = make_corpus(9)
    reasons = decide(texts, DedupSpec(near=1))
    assert {reason.split()[0] for reason in reasons if reason} == {"exact"}
    assert [bool(reason) for reason in reasons] == [str(reason).startswith("exact") for reason in judge(texts, 2)]


def test_pairs_below_a_threshold_are_most_of_them() -> None:
    """The corpus the other tests rest on has pairs on both sides of 0.8."""
    values = [jaccard(one, other) for one, other in combinations(make_corpus(0), 2)]
    assert sum(value >= 0.8 for value in values) > 10 and sum(0.3 < value < 0.8 for value in values) > 5
