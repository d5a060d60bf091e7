"""`GenerateSpec`: what a person writes to have a model make examples. Knows types and defaults; asks nobody.

name: support-questions
model: {endpoint: "https://models.example/v1", model: big-7b, key_env: MODEL_KEY}
method: {kind: questions, per_passage: 3}
judge: {rubric: "The question can be answered from the passage alone.", threshold: 4}
budget: {max_requests: 2000, max_tokens: 4000000}
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from espalier.core.money import price_tokens
from espalier.core.types import SamplingSpec, Spec, Usage
from espalier.core.types.examples import Split

# What a text-only model cannot do, from the filter of Self-Instruct.
_AVOIDED = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot",
    "video", "audio", "music", "flowchart", "diagram",
)  # fmt: skip


class ModelSpec(Spec):
    """Who answers: an OpenAI-compatible endpoint, or a base loaded on this machine. One of the two."""

    endpoint: str = Field("", description="URL that ends in /v1, of any server with OpenAI's chat completions")
    model: str = Field("", description="the endpoint's name of the model")
    key_env: str = Field("", description="environment variable that holds the endpoint's key; empty = none is sent")
    json_mode: bool = Field(False, description='ask for {"type": "json_object"}; only where the endpoint knows it')
    length_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the endpoint calls the longest answer"
    )
    base: str = Field("", description="instead of an endpoint: builtin:NAME, path:DIR or hf:OWNER/NAME")
    concurrency: int = Field(8, ge=1, le=256, description="questions in flight; for a base, decoded together")
    timeout_s: float = Field(120.0, gt=0, description="an answer that takes longer is asked for again")
    retries: int = Field(6, ge=0, le=20, description="further attempts after a 429, a 5xx or a lost connection")
    pause_s: float = Field(1.0, ge=0, le=60, description="before the first further attempt; doubles each time")
    prompt_usd: str = Field("0", description="USD per million tokens asked, to say what it cost")
    completion_usd: str = Field("0", description="USD per million tokens answered")

    @model_validator(mode="after")
    def _check_one(self) -> ModelSpec:
        if bool(self.endpoint) == bool(self.base):
            raise ValueError("name either an endpoint or a base")
        if self.endpoint and not self.model:
            raise ValueError("name the endpoint's model")
        return self

    @field_validator("endpoint")
    @classmethod
    def _check_url(cls, endpoint: str) -> str:
        url = urlsplit(endpoint)
        if endpoint and (url.scheme not in ("http", "https") or not url.hostname):
            raise ValueError("an http or https URL, e.g. http://127.0.0.1:8321/v1")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("a plain URL: keys are named by key_env, never written in a recipe")
        return endpoint.rstrip("/")

    @field_validator("prompt_usd", "completion_usd")
    @classmethod
    def _check_price(cls, text: str) -> str:
        try:
            price = Decimal(text)
        except InvalidOperation:
            raise ValueError("USD per million tokens, e.g. 0.40") from None
        if not price.is_finite() or price < 0:
            raise ValueError("USD per million tokens, 0 for what costs nothing")
        return text

    @property
    def subject(self) -> str:
        """Who is asked, as provenance and the journal name it. No key, no price, no patience."""
        mode = " json" if self.json_mode else ""
        return f"{self.model} at {self.endpoint}{mode}" if self.endpoint else self.base

    def cost_nusd(self, usage: Usage) -> int:
        """What an answer cost at this recipe's prices."""
        prompt = price_tokens(usage.prompt_tokens, Decimal(self.prompt_usd))
        return prompt + price_tokens(usage.completion_tokens, Decimal(self.completion_usd))


class BudgetSpec(Spec):
    """When to stop asking; what was not asked is reported, and nothing else is lost."""

    max_requests: int = Field(0, ge=0, description="answers asked for, resumed ones included; 0 = no limit")
    max_tokens: int = Field(0, ge=0, description="prompt and answer tokens; no further wave begins after; 0 = no limit")


class QuestionsMethod(Spec):
    """Question and answer pairs from passages, each with a quotation that must stand in the passage."""

    kind: Literal["questions"]
    passages: Literal["examples", "documents"] = Field(
        "examples", description="what is read: the text of each example (a chunked text dataset), or whole documents"
    )
    per_passage: int = Field(3, ge=1, le=50, description="most pairs asked of one passage")
    with_passage: bool = Field(False, description="put the passage before the question, as for reading tasks")
    near: float = Field(0.7, gt=0, le=1, description="ROUGE-L from which two questions of a passage are the same")
    min_chars: int = Field(80, ge=1, description="shorter passages are not asked about")
    max_chars: int = Field(12_000, ge=1, description="longer passages are not asked about; chunk them before")


class InstructMethod(Spec):
    """New tasks from seed tasks (Self-Instruct): the pool grows by what differs enough from all in it."""

    kind: Literal["instruct"]
    count: int = Field(100, ge=1, le=1_000_000, description="tasks to make")
    shots: int = Field(6, ge=1, le=50, description="seed tasks shown in each request")
    grown_shots: int = Field(2, ge=0, le=50, description="and so many of those made already")
    per_request: int = Field(4, ge=1, le=20, description="tasks asked for in one request")
    round_requests: int = Field(8, ge=1, le=1000, description="requests before the pool is drawn from again")
    max_rounds: int = Field(0, ge=0, description="stop after so many; 0 = four times what it would take")
    near: float = Field(0.7, gt=0, le=1, description="ROUGE-L from which two instructions are the same")
    min_words: int = Field(3, ge=1, description="shorter instructions are left out")
    max_words: int = Field(150, ge=1, description="longer instructions are left out")
    avoid: tuple[str, ...] = Field(_AVOIDED, description="words of tasks that a text model cannot do")

    @property
    def rounds(self) -> int:
        """The most rounds that will be asked."""
        needed = -(-self.count // (self.per_request * self.round_requests))
        return self.max_rounds or 4 * needed


class ParaphraseMethod(Spec):
    """The last question said in other words; its answer stays."""

    kind: Literal["paraphrase"]
    count: int = Field(2, ge=1, le=20, description="most paraphrases asked of one example")
    near: float = Field(0.9, gt=0, le=1, description="ROUGE-L from which it says nothing new")
    keep_numbers: bool = Field(True, description="every number of the original must stand in it")


class CritiqueMethod(Spec):
    """Nothing new: the judge scores the examples there are, and those below its threshold are left out.

    Examples that are not judged (of other splits, beyond the limit) stay as they are.
    """

    kind: Literal["critique"]


MethodSpec = Annotated[
    QuestionsMethod | InstructMethod | ParaphraseMethod | CritiqueMethod, Field(discriminator="kind")
]


class JudgeSpec(Spec):
    """A model that scores every row by a rubric; rows below the threshold are left out, with its reason."""

    rubric: str = Field(min_length=1, description="what a good row is, in words")
    scale: int = Field(5, ge=2, le=100, description="scores go from 1 to this")
    threshold: int = Field(4, ge=1, le=100, description="least score that is kept")
    model: ModelSpec | None = Field(None, description="another model than the one that wrote the rows")
    sampling: SamplingSpec = Field(SamplingSpec(max_tokens=256), description="how it is asked; greedy by default")

    @model_validator(mode="after")
    def _check_threshold(self) -> JudgeSpec:
        if self.threshold > self.scale:
            raise ValueError(f"a threshold of {self.threshold} on a scale to {self.scale} keeps nothing")
        return self


class GenerateSpec(Spec):
    """A dataset version made by a model from another one."""

    name: str = Field("generated", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="the dataset's name")
    description: str = Field("", description="one line for the card")
    licence: str = Field("", description="SPDX id or a sentence: terms of the input, and of the model on its answers")
    model: ModelSpec = Field(description="who answers")
    method: MethodSpec = Field(description="questions, instruct, paraphrase or critique")
    judge: JudgeSpec | None = Field(None, description="scores every row; needed by critique")
    sampling: SamplingSpec = Field(SamplingSpec(max_tokens=1024), description="how the model is asked")
    splits: tuple[Split, ...] = Field(("train",), min_length=1, description="make rows from these splits only")
    limit: int = Field(0, ge=0, description="from so many input rows, drawn by seed; 0 = all")
    keep_input: bool = Field(False, description="the input's rows, of every split, stand in the result too")
    budget: BudgetSpec = BudgetSpec()
    answers: str = Field("", description="file that keeps answers across recipes; empty = only until the step is done")
    seed: int = Field(0, ge=0, description="draws rows and seed tasks")

    @model_validator(mode="after")
    def _check_judge(self) -> GenerateSpec:
        if isinstance(self.method, CritiqueMethod) and self.judge is None:
            raise ValueError("critique needs a judge with a rubric")
        if isinstance(self.method, CritiqueMethod) and self.keep_input:
            raise ValueError("critique keeps what it does not judge by itself; take keep_input away")
        return self
