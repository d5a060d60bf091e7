"""Why a step runs or does not, in one line: what changed since this step of this pipeline last had a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from espalier.core.config import flatten
from espalier.pipeline.key import Ingredients

_SHOWN = 3  # changes named before "and N more"
_LONG = 40  # characters of a value
_DIGEST_CHARS = 8


def explain_hit(run: str) -> str:
    """`hit: same inputs as run_x`."""
    return f"hit: same inputs as {run}"


def explain_miss(now: Ingredients, before: Ingredients | None) -> str:
    """`miss: lr changed 0.0001 -> 0.0002; code changed: espalier.train.loop`, or `miss: never run`."""
    if before is None:
        return "miss: never run"
    changes = list(changes_between(now, before))
    if not changes:
        return "miss: nothing changed, but the result is not there any more"
    more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return f"miss: {'; '.join(changes[:_SHOWN])}{more}"


def changes_between(now: Ingredients, before: Ingredients) -> Iterator[str]:
    """Every difference, what a user changed first."""
    if now.step != before.step:
        yield f"step {before.step} -> {now.step}"
    yield from _changes("", *_align(flatten(now.spec), flatten(before.spec)), _show)
    yield from _changes("inputs.", now.inputs, before.inputs, _short)
    yield from _files(now.files, before.files)
    if code := _different(now.code, before.code):
        yield f"code changed: {', '.join(code[:_SHOWN])}{' ...' if len(code) > _SHOWN else ''}"
    for name in _different(now.env, before.env):
        yield f"environment variable {name} changed"
    yield from _changes("package ", now.packages, before.packages, _show)
    for name in ("python", "seed"):
        if getattr(now, name) != getattr(before, name):
            yield f"{name} {getattr(before, name)} -> {getattr(now, name)}"
    if now.lock != before.lock:
        yield "lock file changed"


def _align(now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both, with lists of the same steps taken apart, so that a change names the step and its key."""
    apart = {name for name in now.keys() & before.keys() if _same_steps(now[name], before[name])}
    return _take_apart(now, apart), _take_apart(before, apart)


def _take_apart(values: Mapping[str, Any], lists: Set[str]) -> dict[str, Any]:
    flat = {name: value for name, value in values.items() if name not in lists}
    for name in sorted(lists):
        names = _step_names(values[name])
        for number, item in enumerate(values[name]):
            label = names[number] if names.count(names[number]) == 1 else f"{number}.{names[number]}"
            flat.update(flatten(item, f"{name}.{label}."))
    return flat


def _same_steps(now: Any, before: Any) -> bool:
    return bool(_step_names(now)) and _step_names(now) == _step_names(before)


def _step_names(value: Any) -> list[str]:
    """What the `step` of each item says; nothing for what is no list of steps."""
    items = value if isinstance(value, list | tuple) else ()
    names = [str(item["step"]) for item in items if isinstance(item, Mapping) and "step" in item]
    return names if len(names) == len(items) else []


def _changes(
    prefix: str, now: Mapping[str, Any], before: Mapping[str, Any], show: Callable[[Any], str]
) -> Iterator[str]:
    for name in _different(now, before):
        if name not in before:
            yield f"{prefix}{name} = {show(now[name])} is new"
        elif name not in now:
            yield f"{prefix}{name} is gone"
        else:
            yield f"{prefix}{name} changed {show(before[name])} -> {show(now[name])}"


def _files(now: Mapping[str, str], before: Mapping[str, str]) -> Iterator[str]:
    words = {(False, True): "new file", (True, False): "file gone", (True, True): "file changed"}
    for name in _different(now, before):
        yield f"{words[name in before, name in now]}: {name}"


def _different(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in now.keys() | before.keys() if _absent_or(now, name) != _absent_or(before, name))


def _absent_or(values: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    return (values[name],) if name in values else ()


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else ", ".join(_step_names(value)) or repr(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def _short(digest: Any) -> str:
    return str(digest)[:_DIGEST_CHARS]
