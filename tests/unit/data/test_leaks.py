from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.data.dedup.conftest import make_text, substitute
from tests.unit.data.test_split import alone, harvest, row

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types.examples import Split
from espalier.data.flow.batch import MESSAGE, SCHEMA, to_batch
from espalier.data.flow.spread import run_here
from espalier.data.flow.workers import open_spread
from espalier.data.gate import Bounds, build_gate, judge_texts
from espalier.data.leaks import LeakSpec, check_leaks, list_texts
from espalier.data.split import Drawn, SplitSpec, draw_splits
from espalier.store.examples import SPLITS

RANDOM = random.Random(11)
TEXT = "the pump on the second floor makes a loud noise in the morning and stops at noon each day"
QUESTION = make_text(RANDOM, 30)


def check(
    folder: Path,
    texts: Sequence[str],
    spec: LeakSpec,
    placed: Mapping[int, Split] | None = None,
    spread: object = run_here,
) -> list[str | None]:
    """The reason each text is left out for; all stand in train but those that are `placed`."""
    work = folder / "work"
    work.mkdir()
    made = [
        harvest(folder / "made", f"{number}", [row(at, texts[at]) for at in range(len(texts))][number::2])
        for number in range(2)
    ]
    drawn = list(draw_splits(made, SplitSpec(), {}, work, run_here))
    for number, item in enumerate(drawn):
        item.splits[:] = [SPLITS.index((placed or {}).get(2 * at + number, "train")) for at in range(len(item.splits))]
    found = list(check_leaks(made, drawn, spec, folder, work, spread))  # type: ignore[arg-type]
    reasons = [[None] * item.rows if got is None else got.to_pylist() for item, got in zip(made, found, strict=True)]
    return [reasons[at % 2][at // 2] for at in range(len(texts))]


# Between splits


def test_a_text_on_both_sides_is_refused_with_the_pair(tmp_path: Path) -> None:
    texts = [TEXT, "another text altogether about a valve", TEXT + " now"]
    with pytest.raises(
        InvalidInput, match=r"1 example would.*\n  ex_a{16}\.0 \(train\) ~ ex_a{16}\.2 \(test\), Jaccard 0\.9"
    ):
        check(tmp_path, texts, LeakSpec(), {2: "test"})


def test_an_equal_text_on_both_sides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"ex_a{16}\.1 \(train\) ~ ex_a{16}\.0 \(validation\), exact"):
        check(tmp_path, [TEXT, TEXT.upper()], LeakSpec(), {0: "validation"})


def test_likeness_within_a_split_is_no_leak(tmp_path: Path) -> None:
    assert check(tmp_path, [TEXT, TEXT, TEXT + " now"], LeakSpec()) == [None] * 3


def test_what_would_be_learned_is_left_out_and_what_measures_stays(tmp_path: Path) -> None:
    texts = [TEXT, "another text altogether about a valve", TEXT + " now"]
    reasons = check(tmp_path, texts, LeakSpec(policy="drop"), {0: "test", 2: "validation"})
    assert reasons[:2] == [None, None]
    assert str(reasons[2]).startswith(f"leak: ex_{'a' * 16}.0 (test), Jaccard 0.9")


def test_runs_of_words_between_splits_are_looked_for_on_demand(tmp_path: Path) -> None:
    quoting = f"{make_text(RANDOM, 60)} {TEXT} {make_text(RANDOM, 60)}"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert check(tmp_path / "a", [TEXT, quoting], LeakSpec(), {0: "test"}) == [None, None]
    with pytest.raises(InvalidInput, match=r"\(train\) ~ ex_a{16}\.0 \(test\), 100% of its runs of 13 words"):
        check(tmp_path / "b", [TEXT, quoting], LeakSpec(runs_between_splits=True), {0: "test"})


# Against evaluation sets


def write_lines(path: Path, rows: Sequence[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_training_text_that_holds_a_benchmarks_question_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "bench.jsonl", [{"question": make_text(RANDOM, 20)}, {"question": QUESTION, "answer": "42"}])
    texts = [make_text(RANDOM, 40), f"Somebody asked: {QUESTION} And so on. {make_text(RANDOM, 50)}"]
    with pytest.raises(InvalidInput, match=r"\.1 \(train\) ~ bench\.jsonl:2, 100% of its runs of 13 words"):
        check(tmp_path, texts, LeakSpec(against=("bench.jsonl",)))


def test_each_kind_of_leak_is_named_and_the_strongest_first(tmp_path: Path) -> None:
    near = substitute(QUESTION, 1, RANDOM)
    write_lines(tmp_path / "bench.jsonl", [{"q": QUESTION}, {"q": TEXT}])
    texts = [QUESTION.title(), near, " ".join(TEXT.split()[:17]) + " " + make_text(RANDOM, 60), alone(3)]
    reasons = check(tmp_path, texts, LeakSpec(against=("bench.jsonl",), policy="drop", run_share=0.6))
    assert reasons[0] == "leak: bench.jsonl:1, exact"
    assert str(reasons[1]).startswith("leak: bench.jsonl:1, Jaccard 0.8")
    assert reasons[2] == "leak: bench.jsonl:2, 71% of its runs of 13 words"
    assert reasons[3] is None


def test_what_is_held_out_may_stand_in_an_evaluation_set(tmp_path: Path) -> None:
    write_lines(tmp_path / "bench.jsonl", [{"q": QUESTION}])
    spec = LeakSpec(against=("bench.jsonl",), policy="drop")
    assert check(tmp_path, [QUESTION, alone(1)], spec, {0: "test"}) == [None, None]


def test_short_texts_of_an_evaluation_set_are_not_looked_for(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "bench.jsonl", [{"q": "yes", "a": "four of them"}, {"q": "one two three four five six seven eight"}]
    )
    texts = ["Yes!", "four of them", "one two three four five six seven eight"]
    reasons = check(tmp_path, texts, LeakSpec(against=("bench.jsonl",), policy="drop"))
    assert reasons == [None, None, "leak: bench.jsonl:2, exact"]


def test_sets_are_tables_folders_and_dataset_versions(tmp_path: Path) -> None:
    texts = [make_text(RANDOM, 25) for _ in range(5)]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one.csv").write_text(f"question,answer\n{texts[0]},x\n")
    (tmp_path / "set" / "two.txt").write_text(texts[1])
    (tmp_path / "set" / "README.md").write_text(texts[4])
    (tmp_path / "version" / "data").mkdir(parents=True)
    turns = [{"role": "user", "content": texts[2]}, {"role": "assistant", "content": "7"}]
    rows = pa.Table.from_pylist([{"id": "x", "text": "", "messages": turns, "tags": [("about", texts[4])]}])
    pq.write_table(rows, tmp_path / "version" / "data" / "test-00000.parquet")
    pq.write_table(pa.table({"prompt": [texts[3]]}), tmp_path / "alone.parquet")
    spec = LeakSpec(against=("set", "version", "alone.parquet"), policy="drop")
    assert check(tmp_path, texts, spec) == [
        "leak: set/one.csv:2, exact",
        "leak: set/two.txt, exact",
        "leak: version/data/test-00000.parquet:1, exact",
        "leak: alone.parquet:1, exact",
        None,
    ]


def test_turns_of_a_conversation_are_looked_at_one_by_one() -> None:
    batch = to_batch([row(1, "hello\n\nthere"), row(2, "alone")])
    turns = pa.array(
        [[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}], []], pa.list_(MESSAGE)
    )
    batch = batch.set_column(SCHEMA.get_field_index("messages"), SCHEMA.field("messages"), turns)
    for shards, expected in ((batch, [0, 1, 0, 0]), (batch.slice(1), [0])):
        texts, parents = list_texts(shards)
        assert parents.tolist() == expected
        assert texts.to_pylist()[len(shards) :] == ["hello", "there"][: len(expected) - len(shards)]


def test_an_evaluation_set_that_cannot_be_read_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no evaluation set"):
        check(tmp_path, [TEXT, QUESTION], LeakSpec(against=("nowhere.jsonl",)))


def test_a_broken_line_of_an_evaluation_set_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").write_text('{"q": "a"}\n{"q": \n')
    with pytest.raises(InvalidInput, match=r"bench\.jsonl"):
        check(tmp_path, [TEXT, QUESTION], LeakSpec(against=("bench.jsonl",)))


def test_several_gates_and_two_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [make_text(RANDOM, 30) for _ in range(40)]
    write_lines(tmp_path / "bench.jsonl", [{"q": text} for text in known])
    texts = [substitute(known[n], n % 3, RANDOM) if n % 2 else make_text(RANDOM, 30) for n in range(40)]
    spec = LeakSpec(against=("bench.jsonl",), policy="drop", near=0.6)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in "ab":
        (tmp_path / name / "bench.jsonl").write_bytes((tmp_path / "bench.jsonl").read_bytes())
    whole = check(tmp_path / "a", texts, spec)
    assert [bool(reason) for reason in whole] == [n % 2 == 1 for n in range(40)]
    monkeypatch.setattr("espalier.data.leaks._GATE_TEXTS", 7)
    with open_spread(2) as spread:
        assert check(tmp_path / "b", texts, spec, spread=spread) == whole


# The gate itself


def runs_of(text: str, size: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[n : n + size]) for n in range(len(words) - size + 1)}


def test_shares_of_runs_are_what_counting_runs_gives(tmp_path: Path) -> None:
    random_ = random.Random(12)
    known = [" ".join(random_.choices("abcdefgh", k=random_.randrange(3, 60))) for _ in range(40)]
    coming = [" ".join(random_.choices("abcdefgh", k=20) + known[n].split()[n % 7 : 40] + ["z"]) for n in range(40)]
    bounds = Bounds(near=1, run_words=5, run_share=0.3)
    build_gate(tmp_path / "gate", [str(n) for n in range(40)], pa.array(known, pa.large_string()), bounds)
    hits = {hit.row: hit for hit in judge_texts(tmp_path / "gate", pa.array(coming, pa.large_string()), bounds)}
    sets = [runs_of(text, 5) for text in known]
    common = {run for each in sets for run in each if sum(run in other for other in sets) > 10}
    for at, text in enumerate(coming):
        own = runs_of(text, 5)
        shares = [len(own & each - common) / len(each - common) if each - common else 0.0 for each in sets]
        best = max(shares)
        assert (at in hits) == (best >= 0.3)
        if at in hits:
            assert hits[at].value == pytest.approx(best) and shares[int(hits[at].where)] == pytest.approx(best)
    assert 5 < len(hits) < 40


def test_a_gate_of_nothing_lets_everything_by(tmp_path: Path) -> None:
    build_gate(tmp_path / "gate", [], pa.array([], pa.large_string()), Bounds())
    assert judge_texts(tmp_path / "gate", pa.array([TEXT, ""], pa.large_string()), Bounds()) == []
    build_gate(tmp_path / "full", ["x"], pa.array([TEXT], pa.large_string()), Bounds())
    assert judge_texts(tmp_path / "full", pa.array([], pa.large_string()), Bounds()) == []


def test_drawn_splits_pass_the_gate(tmp_path: Path) -> None:
    """What splitting keeps together cannot leak."""
    rows = [row(n, substitute(TEXT, n % 2, RANDOM) if n < 20 else alone(n)) for n in range(60)]
    made = [harvest(tmp_path / "made", "one", rows)]
    (tmp_path / "work").mkdir()
    drawn: list[Drawn] = list(draw_splits(made, SplitSpec(), {}, tmp_path / "work", run_here))
    assert len(np.unique(drawn[0].splits)) == 3
    assert list(check_leaks(made, drawn, LeakSpec(), tmp_path, tmp_path / "work", run_here)) == [None]
