"""A step of your own: how long the questions and answers of a dataset are.

A step is a function of a spec and input artifacts; what it leaves in its output folder is the output artifact. Its key
covers this file and what it imports, so editing it runs it again and says why.
"""

from __future__ import annotations

import json
import statistics

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec
from espalier.store.examples import read_examples


class LengthsSpec(Spec):
    """What to measure."""

    percentile: int = Field(95, ge=1, le=99, description="which percentile to report beside the median")


@step("lengths", version=1, spec=LengthsSpec, inputs={"dataset": "dataset"}, outputs={"lengths": "lengths"})
def measure(context: StepContext, spec: LengthsSpec) -> None:
    """Write the median and a percentile of characters, for questions and answers."""
    examples = list(read_examples(context.input("dataset")))
    table = {}
    for name, turn in (("question", -2), ("answer", -1)):
        sizes = [len(example.messages[turn].content) for example in examples]
        cut = statistics.quantiles(sizes, n=100)[spec.percentile - 1]
        table[name] = {"median": statistics.median(sizes), f"p{spec.percentile}": cut}
        context.metric(f"{name}_median", float(statistics.median(sizes)))
    (context.output("lengths") / "lengths.json").write_text(json.dumps(table, indent=2), "utf-8")
