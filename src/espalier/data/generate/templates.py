"""The prompts that are shipped: Jinja text, a version each. Who fills them in is handed over (`PromptVersion.fill`).

A template's version is raised whenever its text changes; its digest says what was really asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from espalier.core.types import Message


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt's text, not yet able to be filled in: Jinja is not known here."""

    name: str
    version: int
    system: str
    template: str


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """A prompt ready to ask with. `digest` is of its text; `fill` raises InvalidInput for a variable it lacks.

    A prompt that came as an artifact has no version (0): an artifact holds what a prompt says, not where it is kept.
    """

    name: str
    version: int
    digest: str
    fill: Callable[[Mapping[str, str]], list[Message]]

    @property
    def ref(self) -> str:
        return f"{self.name}@v{self.version}" if self.version else self.name


_JSON_ONLY = "You answer with one JSON object and nothing else: no words before or after it, no comments."

QUESTIONS = Template(
    "generate-questions",
    1,
    f"You write questions for people who study a text. {_JSON_ONLY}",
    """\
Read the passage between the lines and write up to {{ count }} questions that it answers.

Each question must make sense to somebody who has not seen the passage. Each answer must follow from the passage alone.
For each, quote word for word the shortest stretch of the passage that proves the answer.

----------
{{ passage }}
----------

Answer in this form:
{"pairs": [{"question": "...", "answer": "...", "quote": "..."}]}""",
)

INSTRUCT = Template(
    "generate-instructions",
    1,
    f"You invent tasks for an assistant that works with text only. {_JSON_ONLY}",
    """\
Here are some tasks, one JSON object a line:

{{ tasks }}

Write {{ count }} new tasks. They must differ from these and from each other in subject, in kind and in wording.
"input" is what a task is about, or "" when it needs nothing. "output" is a complete and correct answer.

Answer in this form:
{"tasks": [{"instruction": "...", "input": "...", "output": "..."}]}""",
)

PARAPHRASE = Template(
    "generate-paraphrases",
    1,
    f"You say things in other words without changing what they mean. {_JSON_ONLY}",
    """\
Say the following in {{ count }} other ways. Keep its meaning, its language and all its particulars: names, numbers,
conditions. Do not answer it.

----------
{{ input }}
----------

Answer in this form:
{"paraphrases": ["..."]}""",
)

CRITIQUE = Template(
    "generate-critique",
    1,
    f"You judge material that a model is to be trained on, strictly and by the rubric alone. {_JSON_ONLY}",
    """\
Rubric: {{ rubric }}

{% if source %}Made from this source:
----------
{{ source }}
----------

{% endif %}The material:
----------
{{ input }}
----------

Score it from 1 (fails the rubric) to {{ scale }} (meets it in full), and say why in one sentence.

Answer in this form:
{"score": 1, "reason": "..."}""",
)

METHODS = {"questions": QUESTIONS, "instruct": INSTRUCT, "paraphrase": PARAPHRASE}
