"""The plan: a pure function of data, seed and position; nothing lost, nothing twice; resumable anywhere."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import lay
from espalier.train.mixing import MixedCorpus
from espalier.train.plan import BEGIN, Cursor, Plan, Strips

LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=50)


def _corpus(lengths: list[int], window: int = 16) -> MixedCorpus:
    strips = [lay(Tokenized(str(n), [3] * size, [0.0, *[1.0] * (size - 1)])) for n, size in enumerate(lengths)]
    return MixedCorpus(Strips(strips), window_documents=window, seed="s")


def _names(plan: Plan, corpus: MixedCorpus, count: int, start: Cursor = BEGIN) -> list[tuple[str, ...]]:
    return [tuple(n for r in batch for n in r.documents) for _, batch in islice(plan.steps(corpus, start), count)]


@given(lengths=LENGTHS, per_step=st.integers(1, 3))
def test_each_pass_sees_every_document_once(lengths: list[int], per_step: int) -> None:
    plan, corpus = Plan(128, per_step, "s"), _corpus(lengths)
    one_pass = plan.count(corpus, 1)
    for epoch in range(2):
        seen = _names(plan, corpus, one_pass if epoch == 0 else plan.count(corpus, 2))
        seen = seen if epoch == 0 else seen[one_pass:]
        assert sorted(name for step in seen for name in step) == sorted(str(n) for n in range(len(lengths)))


@given(lengths=LENGTHS, done=st.integers(0, 30))
def test_a_run_goes_on_from_any_step_as_if_never_stopped(lengths: list[int], done: int) -> None:
    plan, corpus = Plan(100, 2, "s"), _corpus(lengths)
    whole = list(islice(plan.steps(corpus), done + 5))
    start = whole[done - 1][0] if done else BEGIN
    assert _names(plan, corpus, 5, start) == [tuple(n for r in batch for n in r.documents) for _, batch in whole[done:]]


def test_two_passes_differ_in_order() -> None:
    plan, corpus = Plan(64, 1, "s"), _corpus([10] * 40)
    one_pass = plan.count(corpus, 1)
    both = _names(plan, corpus, 2 * one_pass)
    assert both[:one_pass] != both[one_pass:]


def test_an_empty_corpus_gives_no_step() -> None:
    assert _names(Plan(64, 1, "s"), _corpus([]), 3) == []
