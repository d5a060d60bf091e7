"""`Score` and `EvalReport`: a number is never shown without how many cases it rests on and how sure it is."""

from __future__ import annotations

from espalier.core.types.spec import Spec


class Score(Spec):
    """One measured value with its two-sided 95 % interval."""

    name: str
    value: float
    unit: str = "ratio"  # ratio | ms | tokens | nusd ...
    higher_is_better: bool = True
    n: int
    ci_low: float
    ci_high: float


class EvalReport(Spec):
    """What one subject (a model with a prompt) scored on one split of one dataset version."""

    subject: str  # "builtin:seedling", "adapter:<digest>", "model:support@v3" ...
    label: str  # how a table names it: "base, zero-shot"
    dataset: str  # artifact digest
    split: str
    prompt: str = ""  # artifact digest or ref of the prompt version
    scores: tuple[Score, ...]
    outputs: str = ""  # path, inside the report's artifact, of the answers case by case

    def score(self, name: str) -> Score:
        """The score called `name`; raises KeyError when it was not measured."""
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(name)
