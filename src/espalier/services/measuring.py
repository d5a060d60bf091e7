"""Metrics as recipes name them, opened with the models that some of them ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from espalier.core.faults import refuse
from espalier.core.ports import Generate
from espalier.metrics.metric import Metric, MetricSpec, make_metric


@contextmanager
def open_metrics(specs: Sequence[MetricSpec]) -> Iterator[list[Metric]]:
    """The metrics in order; leaving closes whatever their judges ask. Raises what `make_metric` raises."""
    with ExitStack() as stack:
        yield [make_metric(spec, lambda options: stack.enter_context(open_judge(options))) for spec in specs]


@contextmanager
def open_judge(options: Mapping[str, Any]) -> Iterator[Generate]:
    """Who a recipe's `model:` names, as in a recipe of `data generate`. Raises InvalidInput."""
    from espalier.data.generate.spec import ModelSpec
    from espalier.services.generation import open_generate

    try:
        spec = ModelSpec.model_validate(options)
    except ValidationError as error:
        raise refuse(error, options, ModelSpec, what="model", hint="as in a recipe of `data generate`") from None
    with open_generate(spec) as generate:
        yield generate


def list_metric_files(specs: Iterable[MetricSpec], folder: Path) -> list[Path]:
    """The user's files that metrics read: schemas, and Python files with functions."""
    return [path for spec in specs for path in spec.list_files() if (folder / path).is_file()]
