"""How far a student's distribution is from its teacher's, of which the likeliest tokens are known, and all else as one.

Pure functions of log-probabilities. Treating what is not among the k tokens as one more outcome keeps both sides
distributions: the divergence is a lower bound of the whole one, equal to it when k is the vocabulary. Dropping the rest
and normalising the k tokens instead would teach a student to be surer than its teacher.

Legend: r rows, k tokens of each row, sorted or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["forward", "reverse", "js"]

_LEAST_REST = 1e-6  # what float32 leaves of 1 - sum; a smaller rest is noise


def divergences(kind: Divergence, student: Tensor, teacher: Tensor, *, whole: bool) -> Tensor:
    """The divergence of each row (r,) from log-probabilities (r, k) at the same tokens.

    forward: KL(teacher | student), Hinton et al. 2015, arXiv:1503.02531. reverse: KL(student | teacher), which seeks
    modes, Gu et al. 2023, arXiv:2306.08543. js: half of each to their mean, Agarwal et al. 2023, arXiv:2306.13649 eq. 1
    with beta 0.5. `whole` says that the k tokens are the vocabulary, so that there is no rest.
    """
    if not whole:
        student, teacher = _with_rest(student), _with_rest(teacher)
    return _KINDS[kind](student, teacher)


def _with_rest(logp: Tensor) -> Tensor:
    """(r, k) -> (r, k + 1): the log-probability of any other token last."""
    rest = (1 - logp.exp().sum(1, keepdim=True)).clamp(min=_LEAST_REST)
    return torch.cat([logp, rest.log()], 1)


def _forward(student: Tensor, teacher: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum(1)


def _reverse(student: Tensor, teacher: Tensor) -> Tensor:
    return (student.exp() * (student - teacher)).sum(1)


def _js(student: Tensor, teacher: Tensor) -> Tensor:
    mean = torch.logaddexp(student, teacher) - torch.log(torch.tensor(2.0, dtype=student.dtype))
    return 0.5 * (_forward(mean, teacher) + _forward(mean, student))


_KINDS: Mapping[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "forward": _forward,
    "reverse": _reverse,
    "js": _js,
}
