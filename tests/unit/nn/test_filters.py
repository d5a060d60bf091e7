"""Biases, penalties, filters and log-probabilities against transformers' own processors, and against the formulas."""

from __future__ import annotations

import random
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.logits_process import SequenceBiasLogitsProcessor

from espalier.core.types import SamplingSpec
from espalier.nn import sample
from espalier.nn.sample import Sampler, choose_tokens, filter_tokens, tell_logprobs

VOCABULARY = 60


def logits_of(seed: int, rows: int = 1, size: int = VOCABULARY, spread: float = 3.0) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * spread


def ours(logits: Tensor, specs: list[SamplingSpec]) -> Tensor:
    """(m, v): what each token is drawn with."""
    found = torch.zeros_like(logits)
    for kept in filter_tokens(logits, specs):
        weights = kept.weights / kept.weights.sum(-1, keepdim=True)
        found[kept.rows] = (
            weights if kept.ids is None else torch.zeros_like(logits[kept.rows]).scatter(1, kept.ids, weights)
        )
    return found


def theirs(logits: Tensor, spec: SamplingSpec) -> Tensor:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(spec.temperature)])
    if spec.min_p:
        warpers.append(MinPLogitsWarper(spec.min_p))
    if spec.top_k:
        warpers.append(TopKLogitsWarper(spec.top_k))
    if spec.top_p < 1:
        warpers.append(TopPLogitsWarper(spec.top_p))
    warped: Tensor = warpers(torch.zeros(1, 1, dtype=torch.int64), logits.clone())
    return warped.softmax(-1)


specs = st.builds(
    SamplingSpec,
    temperature=st.sampled_from([0.3, 0.8, 1.0, 1.7]),
    top_k=st.sampled_from([0, 0, 1, 3, 20, 200]),
    top_p=st.sampled_from([1.0, 1.0, 0.95, 0.7, 0.2, 0.001]),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.3, 1.0]),
)


@settings(max_examples=60)
@given(st.lists(specs, min_size=1, max_size=4), st.integers(0, 99), st.sampled_from([8, 1024]))
def test_filters_leave_what_transformers_warpers_leave_with_the_same_weights(
    asked: list[SamplingSpec], seed: int, head: int
) -> None:
    logits = logits_of(seed, len(asked))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "_HEAD", head)  # a head shorter than the vocabulary, and one that is not
        found = ours(logits, asked)
    for row, spec in enumerate(asked):
        expected = theirs(logits[row : row + 1], spec)[0]
        assert torch.equal(found[row] > 0, expected > 0)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, VOCABULARY - 1), max_size=8),
    st.lists(st.integers(0, VOCABULARY - 1), max_size=8),
    st.sampled_from([0.5, 1.3]),
    st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-5, 5), max_size=3),
)
def test_bias_and_repetition_penalty_are_transformers_in_that_order(
    prompt: list[int], answer: list[int], penalty: float, biases: dict[int, float]
) -> None:
    spec = SamplingSpec(repetition_penalty=penalty, logit_bias=tuple(biases.items()))
    sampler = Sampler(spec, prompt)
    for token in answer:
        sampler.note(token)
    row = logits_of(3)[0]
    found = row.clone()
    sampler.adjust(found)
    processors: list[Any] = []
    if biases:
        processors.append(SequenceBiasLogitsProcessor({(id,): bias for id, bias in biases.items()}))
    if prompt + answer:
        processors.append(RepetitionPenaltyLogitsProcessor(penalty))
    ids = torch.tensor([prompt + answer], dtype=torch.int64)
    torch.testing.assert_close(found, LogitsProcessorList(processors)(ids, row[None].clone())[0])


def test_presence_and_frequency_count_the_answer_alone_as_openai_defines_them() -> None:
    sampler = Sampler(SamplingSpec(presence_penalty=0.5, frequency_penalty=0.25), prompt=[1, 1, 7])
    for token in [3, 5, 3, 3]:
        sampler.note(token)
    row = torch.zeros(VOCABULARY)
    sampler.adjust(row)
    expected = torch.zeros(VOCABULARY)
    expected[3], expected[5] = -(0.5 + 3 * 0.25), -(0.5 + 0.25)
    torch.testing.assert_close(row, expected)


def test_a_greedy_answer_with_penalties_takes_the_largest_of_the_changed_logits() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]] * 3)
    biased, punished = Sampler(SamplingSpec(logit_bias=((0, 5.0),))), Sampler(SamplingSpec(presence_penalty=1.5))
    punished.note(2)
    assert choose_tokens(logits, [biased, punished, None]) == [0, 1, 2]
    assert logits.tolist() == [[1.0, 2.0, 3.0]] * 3, "the model's own logits are told, so they must stay as they are"


class Only:
    """A form that allows some ids."""

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)

    def allowed(self) -> numpy.typing.NDArray[numpy.bool_]:
        allowed = numpy.zeros(64, dtype=numpy.bool_)  # rounded up beyond the vocabulary, as masks are
        allowed[self.ids] = True
        return allowed


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_bias_reaches_what_the_form_forbids(temperature: float) -> None:
    spec = SamplingSpec(temperature=temperature, logit_bias=((9, 100.0),), top_p=0.9, seed=1)
    samplers = [Sampler(spec, form=Only(4, 8)) for _ in range(30)]
    chosen = choose_tokens(logits_of(1, 30), samplers)
    assert set(chosen) <= {4, 8}
    assert choose_tokens(logits_of(1, 1, size=70), [Sampler(SamplingSpec(), form=Only(5))]) == [5]


def test_rows_are_drawn_alike_alone_and_beside_any_others() -> None:
    chance = random.Random(4)

    def make(number: int) -> Sampler:
        return Sampler(
            SamplingSpec(
                temperature=chance.choice([0.0, 0.7, 1.2]),
                top_k=chance.choice([0, 5, 50]),
                top_p=chance.choice([1.0, 0.9, 0.5]),
                min_p=chance.choice([0.0, 0.05]),
                repetition_penalty=chance.choice([1.0, 1.2]),
                frequency_penalty=chance.choice([0.0, 0.5]),
                seed=number,
            ),
            prompt=[number, number + 1],
        )

    state = chance.getstate()
    together = [make(number) for number in range(24)]
    chance.setstate(state)
    alone = [make(number) for number in range(24)]
    for step in range(20):
        logits = logits_of(step, 24, size=3000)
        order = chance.sample(range(24), chance.randrange(1, 25))
        chosen = choose_tokens(logits[order], [together[i] for i in order])
        for place, i in enumerate(order):
            assert choose_tokens(logits[i : i + 1], [alone[i]]) == [chosen[place]]
            together[i].note(chosen[place])
            alone[i].note(chosen[place])


def test_equal_logits_are_drawn_alike_beside_a_row_that_must_be_sorted_whole() -> None:
    equal = torch.randint(0, 8, (1, 5000), generator=torch.Generator().manual_seed(1)).float() * 3
    flat = torch.zeros(1, 5000)
    spec = SamplingSpec(temperature=1.0, top_k=200, seed=5)
    alone, together = Sampler(spec), Sampler(spec)
    for _ in range(20):
        other = Sampler(SamplingSpec(temperature=1.0, top_p=0.99, seed=2))
        beside = choose_tokens(torch.cat([flat, equal]), [other, together])[1]
        assert choose_tokens(equal, [alone]) == [beside]


def test_each_of_several_answers_has_a_stream_of_its_own_and_the_first_is_that_of_an_only_one() -> None:
    logits = logits_of(0, size=1000, spread=0.5)
    drawn = {
        number: [choose_tokens(logits, [sampler])[0] for _ in range(10)]
        for number, sampler in ((n, Sampler(SamplingSpec(temperature=1.0, seed=7), number=n)) for n in range(4))
    }
    assert len({tuple(tokens) for tokens in drawn.values()}) == 4
    only = Sampler(SamplingSpec(temperature=1.0, seed=7))
    assert [choose_tokens(logits, [only])[0] for _ in range(10)] == drawn[0]


def test_log_probabilities_are_the_model_s_own_whatever_was_asked_for() -> None:
    logits = logits_of(2, 3)
    told = tell_logprobs(logits, [5, 6, 7], [0, None, 4])
    expected = logits.double().log_softmax(-1)
    assert told[1] is None
    assert told[0] is not None and told[2] is not None
    assert told[0][1] == [] and told[0][0] == pytest.approx(float(expected[0, 5]), abs=1e-5)
    best = expected[2].topk(4)
    assert [id for id, _ in told[2][1]] == best.indices.tolist()
    assert [value for _, value in told[2][1]] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_logits_that_are_no_numbers_give_some_token_and_no_breakdown() -> None:
    logits = torch.full((2, VOCABULARY), float("nan"))
    samplers = [Sampler(SamplingSpec(temperature=1.0)), Sampler(SamplingSpec(temperature=1.0, top_p=0.5))]
    assert all(0 <= token < VOCABULARY for token in choose_tokens(logits, samplers))
