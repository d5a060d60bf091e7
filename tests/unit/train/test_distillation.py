"""Distillation against torch's own divergences over the whole vocabulary, and what is kept of a shortened one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from espalier.nn.crossentropy import Head
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import Pack, Strip, join, lay
from espalier.train.distillation.divergence import Divergence, divergences
from espalier.train.distillation.objective import IDS, LOGP, Imitation, cooled
from espalier.train.objective import StepTotals

VOCABULARY, WIDTH = 12, 5
KINDS: tuple[Divergence, ...] = ("forward", "reverse", "js")


class Student:
    """Hidden states of a pack's rows as they are; the head's matrix learns too."""

    def __init__(self, rows: int, softcap: float | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.states = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
        matrix = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
        self.output = Head(matrix, softcap)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return {"states": self.states, "matrix": self.output.matrix}

    def hidden(self, pack: Pack) -> Tensor:
        return self.states[torch.from_numpy(pack.ids[pack.rows])]

    def head(self) -> Head:
        return self.output

    def logits(self, rows: Tensor) -> Tensor:
        found = self.states[rows] @ self.output.matrix.t()
        cap = self.output.softcap
        return found if cap is None else cap * torch.tanh(found / cap)


def teacher_logits(rows: int) -> Tensor:
    return 2 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def reference(kind: Divergence, student: Tensor, teacher: Tensor) -> Tensor:
    """Per row, by torch.nn.functional.kl_div (input, target) = KL(target | input), log-probabilities (r, c)."""
    if kind == "forward":
        return kl_div(student, teacher, log_target=True, reduction="none").sum(1)
    if kind == "reverse":
        return kl_div(teacher, student, log_target=True, reduction="none").sum(1)
    mean = ((student.exp() + teacher.exp()) / 2).log()
    return 0.5 * (reference("forward", mean, teacher) + reference("forward", mean, student))


def with_teacher(strip: Strip, logits: Tensor, k: int, temperature: float) -> Strip:
    logp, ids = torch.log_softmax(logits[torch.from_numpy(strip.ids[strip.rows]).long()] / temperature, -1).topk(k)
    return replace(strip, extras={IDS: ids.numpy().astype(np.int32), LOGP: logp.numpy().astype(np.float32)})


def documents() -> list[Strip]:
    texts = [Tokenized("a", [1, 2, 3, 4], [0, 0, 1, 0.5]), Tokenized("b", [5, 6, 7], [0, 1, 1])]
    return [lay(text) for text in texts]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (2.0, 0.5)])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_with_the_whole_vocabulary_loss_and_gradients_are_torchs(
    kind: Divergence, temperature: float, alpha: float, softcap: float | None
) -> None:
    student, teaching = Student(VOCABULARY, softcap), teacher_logits(VOCABULARY)
    strips = [with_teacher(strip, teaching, VOCABULARY, temperature) for strip in documents()]
    rows = torch.from_numpy(np.concatenate([strip.ids[strip.rows] for strip in strips])).long()
    targets = torch.from_numpy(np.concatenate([strip.targets for strip in strips])).long()
    weights = torch.from_numpy(np.concatenate([strip.weights for strip in strips])).double()
    logits = student.logits(rows)
    pair = [torch.log_softmax(side / temperature, -1) for side in (logits, teaching[rows])]
    soft = (reference(kind, *pair) * weights).sum() / weights.sum()
    hard = (cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
    wanted = alpha * temperature**2 * soft + (1 - alpha) * hard
    expected = torch.autograd.grad(wanted, list(student.parameters.values()))

    objective = Imitation(kind, temperature, alpha, whole=True)
    for packs in ([join(strips)], [join(strips[:1]), join(strips[1:])]):
        step = StepTotals(sum(objective.weigh(pack) for pack in packs))
        value = torch.stack([objective.loss(student, pack, step).value for pack in packs]).sum()
        assert float(value.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
        found = torch.autograd.grad(value, list(student.parameters.values()))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**16), k=st.integers(1, VOCABULARY - 1))
def test_a_shortened_divergence_is_a_bound_of_the_whole_one(kind: Divergence, seed: int, k: int) -> None:
    drawn = torch.randn(2, 3, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    student, teacher = torch.log_softmax(drawn, -1)
    known, ids = teacher.topk(k)
    short = divergences(kind, student.gather(1, ids), known, whole=False)
    assert (short >= -1e-9).all()
    assert (short <= reference(kind, student, teacher) + 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_like_its_teacher_has_nothing_to_learn_from_it(kind: Divergence) -> None:
    logp = torch.log_softmax(teacher_logits(4), -1).topk(5)[0].requires_grad_()
    found = divergences(kind, logp, logp.detach(), whole=False)
    assert found.abs().max() < 1e-9
    assert torch.autograd.grad(found.sum(), logp)[0].sum(1).abs().max() < 1  # finite: no rest, no division by it


def test_gradients_are_finite_where_the_likeliest_tokens_have_all_the_mass() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 0] = 200.0
    student = torch.log_softmax(logits, -1)[:, :3].clone().requires_grad_()
    teacher = torch.log_softmax(logits, -1)[:, :3]
    for kind in KINDS:
        found = divergences(kind, student, teacher, whole=False)
        (gradient,) = torch.autograd.grad(found.sum(), student)
        assert found.isfinite().all() and gradient.isfinite().all()


@given(temperature=st.floats(0.25, 8), softcap=st.one_of(st.none(), st.floats(1, 50)), scale=st.floats(0.1, 2))
def test_a_cooled_heads_logits_are_divided_by_the_temperature(
    temperature: float, softcap: float | None, scale: float
) -> None:
    z = torch.linspace(-9, 9, 7, dtype=torch.float64)

    def logits(head: Head) -> Tensor:
        scaled = head.scale * z
        return scaled if head.softcap is None else head.softcap * torch.tanh(scaled / head.softcap)

    head = Head(z, softcap, scale)
    torch.testing.assert_close(logits(cooled(head, temperature)), logits(head) / temperature)
