"""What the event stream means to a person at a terminal: lines that stay, and one status that is overwritten.

Pure: events in, text out; so it is the same with and without a terminal, and tests need none. An event of a kind
nobody here knows is not shown: the full stream is in the run's log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from espalier.core.events import Event

_BARS = "▁▂▃▄▅▆▇█"
_CURVE_POINTS = 32
_SHOWN_FILES = 5
_MEASURED = ("accuracy", "margin", "reward", "divergence")  # what a method measures beside its loss


class Progress:
    """Takes events; `take` returns the lines to keep, `status` is what is going on now."""

    def __init__(self) -> None:
        self.status = ""
        self.losses: list[float] = []
        self._validated: object = None
        self.share = 0.0  # of the work the status speaks of, in 0..1
        self._lines: dict[str, Callable[[dict[str, Any]], list[str]]] = {
            "log": lambda data: [str(data.get("message", ""))],
            "step.started": self._step_started,
            "step.finished": self._step_finished,
            "step.failed": lambda data: self._step_finished({**data, "status": "failed", "reason": ""}),
            "data.read": self._data_read,
            "data.problems": lambda data: [f"    {line}" for line in data.get("lines", ())],
            "data.progress": self._data_progress,
            "data.survey": self._data_survey,
            "data.built": self._data_built,
            "data.version": self._data_version,
            "train.tokenize": self._train_tokenize,
            "train.audit": self._train_audit,
            "train.resumed": self._train_resumed,
            "train.step": self._train_step,
            "train.eval": self._train_eval,
            "train.done": self._train_done,
            "search.trial": self._search_trial,
            "search.told": self._search_told,
            "search.best": self._search_best,
            "eval.progress": self._eval_progress,
            "eval.finished": self._eval_finished,
            "generate.progress": self._generate_progress,
            "batch.progress": self._generate_progress,
            "batch.finished": self._batch_finished,
            "generate.finished": self._generate_finished,
            "step.skipped": self._step_skipped,
            "step.retry": self._step_skipped,
            "ask.finished": self._ask_finished,
        }

    def take(self, event: Event) -> list[str]:
        """Update the status; returns lines that stay on the screen."""
        show = self._lines.get(event.kind)
        return show(event.data) if show else []

    def _step_started(self, data: dict[str, Any]) -> list[str]:
        self.losses.clear()
        self._validated = None
        self.status, self.share = f"{_name(data)} ...", 0.0
        return []

    def _step_finished(self, data: dict[str, Any]) -> list[str]:
        self.status = ""
        hit = data.get("hit", data.get("cached", False))
        status = str(data.get("status", "done"))
        mark = "=" if hit else "x" if status in ("failed", "cancelled") else "-" if status == "skipped" else "+"
        said = "cached" if hit else status
        took = format_s(data["wall_ms"] / 1000) if data.get("wall_ms") and not hit else ""
        reason = str(data.get("reason", "") or data.get("because", ""))
        return [
            "  ".join(part for part in (f"{mark} {_name(data):<20} {said:<9}", f"{took:>7}", reason) if part).rstrip()
        ]

    def _step_skipped(self, data: dict[str, Any]) -> list[str]:
        self.status = ""
        return [f"- {_name(data):<20} {data.get('reason', '')}".rstrip()]

    def _ask_finished(self, data: dict[str, Any]) -> list[str]:
        tokens = f", {data['completion_tokens']} tokens" if data.get("completion_tokens") else ""
        return [f"{data.get('request', '')}{tokens}: `espalier trace {data.get('request', '')}` follows it back"]

    def _data_read(self, data: dict[str, Any]) -> list[str]:
        told = [f"{data.get('documents', 0):,} documents", _left(data)]
        self._show("read", data.get("files", 0), data.get("of_files", 0), "  ".join(filter(None, told)))
        if data.get("of_bytes"):  # one large file among few: its bytes say more than how many files are done
            self.share = data["bytes"] / data["of_bytes"]
            self.status = (
                f"    read {data['files']}/{data['of_files']}  {bar(self.share)}  {'  '.join(filter(None, told))}"
            )
        return []

    def _data_progress(self, data: dict[str, Any]) -> list[str]:
        steps = [str(step).partition("@")[0] for step in data.get("steps", ())]
        told = [", ".join(steps), _left(data)]
        self._show("clean", data.get("shards", 0), data.get("of_shards", 0), "  ".join(filter(None, told)))
        return []

    def _data_survey(self, data: dict[str, Any]) -> list[str]:
        self.status, self.share = f"{data.get('step', '')} over {data.get('rows', 0):,} documents ...", 0.0
        return []

    def _data_built(self, data: dict[str, Any]) -> list[str]:
        self.status = ""
        documents = f"{data.get('documents_kept', 0)} of {data.get('documents_read', 0)} documents"
        lines = [f"{data.get('examples', 0)} examples from {documents}: {_list_counts(data.get('splits', {}))}"]
        lines += [f"left out: {counts}" for counts in [_list_counts(data.get("drops", {}))] if counts]
        lines += [f"files not read: {counts}" for counts in [_list_counts(data.get("files_skipped", {}))] if counts]
        lines += [f"redacted: {counts}" for counts in [_list_counts(data.get("redactions", {}))] if counts]
        unreadable = data.get("unreadable", [])
        lines += [f"unreadable: {item}" for item in unreadable[:_SHOWN_FILES]]
        if len(unreadable) > _SHOWN_FILES:
            lines.append(f"unreadable: {len(unreadable) - _SHOWN_FILES} more, in `espalier data exclusions`")
        return [f"    {line}" for line in lines]

    def _data_version(self, data: dict[str, Any]) -> list[str]:
        ref = data.get("ref", "")
        return [f"    {ref}: `espalier data show {str(ref).removeprefix('dataset:')}` tells what is in it"]

    def _train_audit(self, data: dict[str, Any]) -> list[str]:
        share = data.get("supervised_share")
        if not isinstance(share, float):
            return []
        self.status = ""
        counts = {name: data.get(name, 0) for name in ("dropped", "truncated", "split")}
        said = f"learning from {share:.0%} of {data.get('tokens', 0):,} tokens in {data.get('examples', 0):,} examples"
        lines = [f"    {said}" + "".join(f", {count:,} {name}" for name, count in counts.items() if count)]
        for part in data.get("parts", ()):
            lines.append(f"      {part.get('name') or 'main'}: {part['tokens']:,} tokens, share {part['share']:g}")
        return lines + [f"    ! {warning}" for warning in data.get("warnings", ())]

    def _train_tokenize(self, data: dict[str, Any]) -> list[str]:
        told = f"{data.get('tokens', 0):,} tokens {data.get('dataset', '')}".rstrip()
        self._show("tokenize", data.get("examples", 0), data.get("of", 0), told)
        return []

    def _search_trial(self, data: dict[str, Any]) -> list[str]:
        self.losses.clear()
        return [f"    trial {data.get('number', 0) + 1} of {data.get('of')}: {_list_fields(data.get('fields', {}))}"]

    def _search_told(self, data: dict[str, Any]) -> list[str]:
        figures = {name: value for name, value in data.items() if isinstance(value, float)}
        return [f"    {data.get('state')} {_list_fields(figures)}".rstrip()]

    def _search_best(self, data: dict[str, Any]) -> list[str]:
        figures = {name: value for name, value in data.items() if isinstance(value, float)}
        best = f"trial {data.get('number', 0) + 1}: {_list_fields(figures)}"
        return [f"    best: {best} with {_list_fields(data.get('fields', {}))}"]

    def _train_resumed(self, data: dict[str, Any]) -> list[str]:
        return [f"    resumed from the checkpoint at step {data.get('step')}"]

    def _train_step(self, data: dict[str, Any]) -> list[str]:
        loss = float(data.get("loss", 0.0))
        self.losses.append(loss)
        speed = f"{data.get('tokens_per_s', 0):,.0f} tokens/s"
        left = _left(data)
        told = (f"loss {loss:.3f}", curve(self.losses), _list_measured(data), speed, left)
        figures = "  ".join(part for part in told if part)
        self._show("step", data.get("step", 0), data.get("steps", 0), figures)
        return []

    def _train_eval(self, data: dict[str, Any]) -> list[str]:
        loss, step = data.get("validation_loss", data.get("loss")), data.get("step")
        if step == self._validated:  # the last step may also be a checkpoint: one line is enough
            return []
        self._validated = step
        said = [f"validation loss {loss:.3f}"] if isinstance(loss, float) else []
        return (
            [f"    step {step}: {'  '.join(said + [part for part in [_list_measured(data)] if part])}"] if said else []
        )

    def _train_done(self, data: dict[str, Any]) -> list[str]:
        if not self.losses:
            return []
        shape = f"    loss {self.losses[0]:.3f} {curve(self.losses)} {self.losses[-1]:.3f}"
        self.losses.clear()
        return [shape]

    def _eval_progress(self, data: dict[str, Any]) -> list[str]:
        left = f"{format_s(data['eta_ms'] / 1000)} left" if data.get("eta_ms") else ""
        self._show(str(data.get("label", "cases")), data.get("done", 0), data.get("total", 0), left)
        return []

    def _eval_finished(self, data: dict[str, Any]) -> list[str]:
        scores = data.get("scores") or {}
        shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float))
        return [f"    {data.get('label', '')}: {shown}".rstrip()] if shown else []

    def _generate_progress(self, data: dict[str, Any]) -> list[str]:
        left = f"{format_s(data['eta_ms'] / 1000)} left" if data.get("eta_ms") else ""
        tokens = data.get("prompt_tokens", 0) + data.get("completion_tokens", 0)
        told = [f"{tokens:,} tokens", data.get("cost", ""), left]
        self._show(
            str(data.get("what", "asked")), data.get("done", 0), data.get("total", 0), "  ".join(filter(None, told))
        )
        return []

    def _generate_finished(self, data: dict[str, Any]) -> list[str]:
        self.status = ""
        lines = [f"    {data.get('kept', 0)} of {data.get('rows', 0)} rows kept"]
        return lines + [f"    left out: {counts}" for counts in [_list_counts(data.get("drops", {}))] if counts]

    def _batch_finished(self, data: dict[str, Any]) -> list[str]:
        self.status = ""
        failed = f", {data['failed']} failed: {data.get('errors') or data['output']}" if data.get("failed") else ""
        told = f"{data.get('status', '')}: {data.get('completed', 0)} of {data.get('total', 0)} lines answered"
        unasked = data.get("total", 0) - data.get("completed", 0) - data.get("failed", 0)
        left = f", {unasked} not asked: {data.get('errors') or data['output']}" if unasked else ""
        return [f"    {told}{failed}{left}", f"    answers: {data.get('output', '')}"]

    def _show(self, what: str, done: int, total: int, rest: str) -> None:
        """A bar; before it is known how many there will be, only what is being done."""
        self.share = done / total if total else 0.0
        counted = f"    {what} {done}/{total}  {bar(self.share)}  {rest}".rstrip()
        self.status = counted if done or total else f"    {what} ..."


def bar(share: float, width: int = 16) -> str:
    """A filled bar for a share in 0..1."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "━" * full + "╌" * (width - full)


def curve(values: list[float], points: int = _CURVE_POINTS) -> str:
    """The values as a line of block characters, averaged down to `points`."""
    if len(values) < 2:
        return ""
    size = max(1.0, len(values) / points)
    cells = [
        values[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))] for i in range(min(points, len(values)))
    ]
    means = [sum(cell) / len(cell) for cell in cells if cell]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def format_s(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3:05 min`, `2:10 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _name(data: dict[str, Any]) -> str:
    return str(data.get("name") or data.get("node") or data.get("step") or "step")


def _left(data: dict[str, Any]) -> str:
    return f"{format_s(data['eta_s'])} left" if data.get("eta_s") else ""


def _list_measured(data: dict[str, Any]) -> str:
    return "  ".join(f"{name} {data[name]:.3f}" for name in _MEASURED if isinstance(data.get(name), float))


def _list_fields(fields: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in fields.items()
    )


def _list_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
