"""What a metric is, and how one is found by name.

A metric looks at one case and gives one number. Evaluations make scores and intervals from those numbers, training by
reinforcement makes rewards of them. It is a pure function: the same case gives the same measurement (a judge as far as
its model does). Knows no dataset and no model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.plugins import load_plugin
from espalier.core.ports import Generate
from espalier.core.types import Message, Spec

GROUP = "espalier.metrics"

OpenModel = Callable[[Mapping[str, Any]], Generate]  # a recipe's `model: {...}` -> who answers


@dataclass(frozen=True, slots=True)
class Answered:
    """One case with its answer: all that a metric is shown."""

    id: str
    answer: str
    reference: str
    question: Sequence[Message] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurement:
    """`value` for the case; `parts` break it down by name (each 0 to 1); `why` says in words what was wrong."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


class Metric(Protocol):
    """`unit` "ratio" promises values from 0 to 1."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def measure(self, case: Answered) -> Measurement: ...


@dataclass(frozen=True, slots=True)
class Ratio:
    """The usual metric: a number from 0 to 1, more is better, made by a function of the case."""

    name: str
    function: Callable[[Answered], Measurement]
    unit: str = "ratio"
    higher_is_better: bool = True
    waits: bool = False  # for somebody else's answer: so many cases may be measured at once, from several threads

    def measure(self, case: Answered) -> Measurement:
        return self.function(case)


class MetricSpec(Spec):
    """A metric as a recipe names it. `options` are the keyword arguments of its factory."""

    name: str
    options: dict[str, Any] = {}

    def list_files(self) -> list[Path]:
        """The user's files it reads, as the recipe names them: a schema, a Python file with a function."""
        schema, function = self.options.get("schema"), self.options.get("function")
        found = []
        if isinstance(schema, str) and schema and not schema.lstrip().startswith(("<", "{")):  # else it is the text
            found.append(Path(schema))
        if isinstance(function, str):
            found.append(Path(function.rpartition(":")[0]))
        return found


def make_metric(spec: MetricSpec, open_model: OpenModel | None = None) -> Metric:
    """Find and build a metric. Raises NotFound for an unknown one, InvalidInput for an option it does not take.

    A factory with a parameter `ask` gets the `Generate` that `open_model` makes of the option `model`.
    """
    factory = load_plugin(GROUP, spec.name)
    parameters = dict(inspect.signature(factory).parameters)
    asks = parameters.pop("ask", None) is not None
    if asks:
        parameters["model"] = inspect.Parameter("model", inspect.Parameter.KEYWORD_ONLY)
    for option in spec.options:
        if option not in parameters:
            hint = did_you_mean(option, parameters) or "it takes no options"
            raise InvalidInput(f"metric {spec.name} has no option {option!r}", hint=hint)
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in spec.options:
            raise InvalidInput(
                f"metric {spec.name} needs the option {name!r}", hint=f"add `{name}: ...` to its options"
            )
    options = dict(spec.options)
    if asks:
        model = options.pop("model")
        if open_model is None:
            raise InvalidInput(f"metric {spec.name} asks a model, which cannot be done here")
        options["ask"] = open_model(model)
    metric: Metric = factory(**options)
    return metric
