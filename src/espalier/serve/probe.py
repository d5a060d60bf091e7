"""Does the engine compute what the model computes? Asked once, before the first request. Knows no request.

Architectures differ in ways no list of names can foresee. So the same tokens go through the model as it was loaded and,
in pieces and out of order, through slots and steps; a model whose logits then differ is refused, not served wrongly.

Layers that look back only so far are looked at with a window shorter than the probe, on both sides: a window of
thousands of positions then costs no more to check than none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from espalier.core.errors import UnsupportedModel
from espalier.nn.base import LoadedBase
from espalier.serve.runner import Runner
from espalier.serve.scheduler import Chunk, Copy, Plan, Work

_TOKENS = 24
_WINDOW = 7  # shorter than the probe's first chunk
# Where transformers' masks and attention layers find how far back a layer looks.
_WINDOW_SETTINGS = ("sliding_window", "attention_chunk_size")
_ELSEWHERE = "its attention is of a kind this engine does not know; serve it elsewhere, behind the gateway"
# Of the logits' own spread: rounding stays orders of magnitude below, a wrong mask or position far above.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}


@torch.inference_mode()
def expected_logits(base: LoadedBase) -> Tensor:
    """Logits of every position of the probe, (t, v), by transformers alone: before a `Runner` takes the model over."""
    ids = torch.tensor([_probe_ids(base)], device=base.device)
    with _short_windows(base.model):
        logits: Tensor = base.model(input_ids=ids, use_cache=False).logits
    return logits[0].float()


def check_runner(runner: Runner, expected: Tensor) -> None:
    """Raise UnsupportedModel unless `runner` gives `expected` for a prompt in two chunks, single tokens, and a copy."""
    base = runner.base
    try:
        with _short_windows(base.model):
            found = _run_in_pieces(runner)
    except RuntimeError as error:
        raise UnsupportedModel(
            f"{base.spec} ({type(base.model).__name__}) does not fit the engine's cache: {error}", hint=_ELSEWHERE
        ) from error
    ends = [9, 19, *range(20, _TOKENS)][: len(found)]
    spread = float(expected.std())
    # By root mean square: among so many logits, plain rounding alone brings the largest difference to 5 deviations.
    worst = max(float((row - expected[end]).square().mean().sqrt()) for row, end in zip(found, ends, strict=True))
    if not worst <= _TOLERANCE[base.dtype] * spread:  # also true of NaN
        name = type(base.model).__name__
        raise UnsupportedModel(
            f"{base.spec} ({name}): the engine's logits differ from the model's own by {worst:.2g}",
            hint=_ELSEWHERE,
        )


def _probe_ids(base: LoadedBase) -> list[int]:
    return [(7 * i + 3) % base.tokenizer.size for i in range(_TOKENS)]


def _run_in_pieces(runner: Runner) -> list[Tensor]:
    """Logits after positions 9, 19, 20, 21 ...; the last from another slot than the others, where there is one."""
    work = Work("probe", "", _probe_ids(runner.base), _TOKENS, _TOKENS, slot=0)
    found = [_run(runner, work, 0, 10), _run(runner, work, 10, 20)]
    found += [_run(runner, work, position, position + 1) for position in range(20, _TOKENS - 1)]
    if runner.slots > 1:
        work.slot = 1
        found.append(_run(runner, work, _TOKENS - 1, _TOKENS, Copy(0, 1, _TOKENS - 1)))
    return found


@contextmanager
def _short_windows(model: PreTrainedModel) -> Iterator[None]:
    """Inside, every layer that looks back only so far looks back `_WINDOW` positions."""
    holders = [model.config, model.config.get_text_config(), *model.modules()]
    own = [
        (holder, name, vars(holder)[name])
        for holder in holders
        for name in _WINDOW_SETTINGS
        if isinstance(vars(holder).get(name), int) and vars(holder)[name] > _WINDOW
    ]
    try:
        for holder, name, _ in own:
            setattr(holder, name, _WINDOW)
        yield
    finally:
        for holder, name, value in own:
            setattr(holder, name, value)


def _run(runner: Runner, work: Work, start: int, end: int, *copies: Copy) -> Tensor:
    _, logits = runner.run(Plan(list(copies), [Chunk(work, start, end, ends=True)]))
    return logits[0]
