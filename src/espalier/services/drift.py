"""Drift: a dataset version against another, or live prompts against it, with thresholds from a file and an alarm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from espalier.core.errors import GateFailed, InvalidInput
from espalier.core.events import Event
from espalier.core.operations import operation
from espalier.core.types import Spec
from espalier.core.types.examples import Split
from espalier.data.drift.report import DriftReport
from espalier.data.drift.spec import DriftSpec
from espalier.services.catalogue import find_dataset

if TYPE_CHECKING:
    from espalier.data.drift.population import Population
    from espalier.services.context import Context

_SHOWN = 20  # tests told in the event


class CompareDrift(Spec):
    """What to compare with what."""

    reference: str = Field(description="dataset:NAME@vN, or just NAME for its newest version: what was trained on")
    current: str = Field("", description="another version of a dataset; or give prompts")
    prompts: str = Field("", description="a file of live prompts: JSON lines, JSON, CSV or Parquet")
    column: str = Field("", description="with prompts: the text column; empty = found by the format")
    split: Split | None = Field(None, description="only this split of the versions")
    thresholds: str = Field("", description="YAML file with slices and limits (see `config schema drift`)")
    slices: tuple[str, ...] = Field((), description="besides those of the file: a tag, `split`, or label:FIELD")
    base: str = Field("", description="also count tokens, as this base does, e.g. builtin:seedling")
    fail_on: Literal["never", "warn", "alarm"] = Field("never", description="exit 5 from this verdict on")


@operation("datasets.drift", "POST /v1/datasets/drift", positional=("reference", "current"), role="admin")
def drift(context: Context, request: CompareDrift) -> DriftReport:
    """Test whether a version, or live prompts, are still spread as the reference is: lengths, labels, words, wording.

    Every comparison is told to whoever watches as the event data.drift.

    Example:
        espalier data drift support@v3 --prompts live.jsonl --thresholds drift.yaml --fail-on alarm
    """
    from espalier.core.recipefile import load_recipe
    from espalier.data.drift.measure import measure_drift

    if bool(request.current) == bool(request.prompts):
        raise InvalidInput(
            "give either current or prompts", hint="a second NAME@vN for a version, --prompts FILE for live prompts"
        )
    spec = load_recipe(context.place(request.thresholds), DriftSpec) if request.thresholds else DriftSpec()
    spec = spec.model_copy(update={"slices": tuple(dict.fromkeys((*spec.slices, *request.slices)))})
    encode = _find_encoder(request.base) if request.base else None
    reference, name = _read_version(context, request.reference, request.split, spec, encode)
    notes: list[str] = []
    if request.prompts:
        path = context.place(request.prompts)
        current, other = _read_prompts(path, request.column, spec, encode, notes), path.name
    else:
        current, other = _read_version(context, request.current, request.split, spec, encode)
    found = measure_drift(reference, current, spec)
    report = found.model_copy(update={"reference": name, "current": other, "notes": (*found.notes, *notes)})
    context.emit(_tell_event(report))
    if request.fail_on != "never" and report.alarms(request.fail_on):
        raise GateFailed(report.describe(), hint=report.advice())
    return report


def _tell_event(report: DriftReport) -> Event:
    """`data.drift`: the verdict, how many tests warn or alarm, and the worst of them."""
    loud = report.alarms("warn")
    return Event(
        "data.drift",
        {
            "reference": report.reference,
            "current": report.current,
            "verdict": report.verdict,
            "alarms": sum(test.verdict == "alarm" for test in loud),
            "warnings": sum(test.verdict == "warn" for test in loud),
            "tests": [test.model_dump(mode="json") for test in loud[:_SHOWN]],
        },
    )


def _read_version(
    context: Context, ref: str, split: Split | None, spec: DriftSpec, encode: Callable[[str], Sequence[int]] | None
) -> tuple[Population, str]:
    from espalier.data.drift.population import sample_population
    from espalier.store.examples import read_examples

    version = find_dataset(context.store, ref)
    folder = context.store.artifacts.materialise(version.digest)
    return sample_population(read_examples(folder, split), spec, encode), version.ref


def _read_prompts(
    path: Path, column: str, spec: DriftSpec, encode: Callable[[str], Sequence[int]] | None, notes: list[str]
) -> Population:
    from espalier.data.drift.population import sample_population
    from espalier.data.drift.prompts import read_prompts

    return sample_population(read_prompts(path, column, notes), spec, encode, placed=False)


def _find_encoder(base: str) -> Callable[[str], Sequence[int]]:
    from espalier.nn.locate import locate_base
    from espalier.tokens.tokenizer import load_tokenizer

    return load_tokenizer(locate_base(base)).encode
