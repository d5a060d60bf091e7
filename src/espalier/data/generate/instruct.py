"""Self-Instruct: seed tasks and a few made ones are shown, new ones come back, and those unlike the pool join it.

Source: Wang et al. 2022, "Self-Instruct: Aligning Language Models with Self-Generated Instructions" (ROUGE-L below 0.7
with every instruction of the pool; six seed and two made tasks shown; too short or long instructions, those about
pictures and files, and repeated ones left out). Unlike there, instruction, input and output come from one question,
as in Alpaca (Taori et al. 2023), so there is no separate step that tells classification tasks apart.

Rounds make it resumable and the same on every run: what a round shows is drawn by (seed, round, request) from the pool
as the rounds before left it, and a round's answers are taken in the order they were asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from espalier.core.errors import InvalidInput
from espalier.core.types import Example, Message, SamplingSpec
from espalier.data.generate.asking import Asker, Filled
from espalier.data.generate.forms import Task, Tasks
from espalier.data.generate.overlap import Pool, words_of
from espalier.data.generate.row import Origin, Row, make_example
from espalier.data.generate.spec import InstructMethod
from espalier.data.generate.templates import PromptVersion


def make_instructions(
    seeds: Sequence[Example],
    method: InstructMethod,
    prompt: PromptVersion,
    asker: Asker,
    sampling: SamplingSpec,
    *,
    seed: int,
) -> list[Row]:
    """Rows in the order they came, until `method.count` are kept, the rounds are over or the budget is spent.

    A seed task is an example whose last turns are a question and its answer. Raises InvalidInput without one.
    """
    tasks = [(example, task) for example in seeds if (task := task_of(example)) is not None]
    if not tasks:
        raise InvalidInput(
            "no seed task: no example ends with a question and its answer", hint="build a chat or completion dataset"
        )
    growth = _Growth(method, prompt, asker, sampling, seed, tasks)
    for number in range(method.rounds):
        if not growth.grow(number):
            break
    return growth.rows


def task_of(example: Example) -> Task | None:
    """An example's last question and answer as a seed task; None where it has none."""
    turns = example.messages
    if len(turns) < 2 or turns[-1].role != "assistant" or turns[-2].role != "user":
        return None
    if not turns[-1].content.strip() or not turns[-2].content.strip():
        return None
    return Task(instruction=turns[-2].content, output=turns[-1].content)


class _Growth:
    """The pool and the rows so far."""

    def __init__(
        self,
        method: InstructMethod,
        prompt: PromptVersion,
        asker: Asker,
        sampling: SamplingSpec,
        seed: int,
        tasks: list[tuple[Example, Task]],
    ) -> None:
        self.rows: list[Row] = []
        self._method, self._prompt, self._asker = method, prompt, asker
        self._sampling, self._seed, self._seeds = sampling, seed, tasks
        self._grown: list[tuple[Example, Task]] = []
        self._pool = Pool(method.near, (task.instruction for _, task in tasks))

    def grow(self, round_number: int) -> bool:
        """One round; False when there is nothing more to do."""
        shown = [self._draw(round_number, request) for request in range(self._method.round_requests)]
        asked = [self._prompt.fill(self._variables(each)) for each in shown]
        filled = self._asker.fill(asked, self._sampling, Tasks, what=f"round {round_number + 1}")
        for examples, answered in zip(shown, filled, strict=True):
            self._take([example for example, _ in examples], answered)
        spent = any(answered.reason.startswith("not asked") for answered in filled)
        return len(self._grown) < self._method.count and not spent

    def _draw(self, round_number: int, request: int) -> list[tuple[Example, Task]]:
        """The tasks one request shows: seeds first, then made ones, each drawn by the hash of its id."""
        salt = f"{self._seed}:{round_number}:{request}"
        grown = _draw_some(self._grown, self._method.grown_shots, salt)
        return [*_draw_some(self._seeds, self._method.shots, salt), *grown]

    def _variables(self, shown: list[tuple[Example, Task]]) -> dict[str, str]:
        lines = [json.dumps(task.model_dump(), ensure_ascii=False) for _, task in shown]
        return {"tasks": "\n".join(lines), "count": str(self._method.per_request)}

    def _take(self, parents: list[Example], answered: Filled[Tasks]) -> None:
        origin = Origin(
            "instruct",
            tuple(parent.id for parent in parents),
            self._prompt,
            self._asker.subject,
            self._sampling,
            answered.reply.digest,
            answered.mended,
        )
        if answered.form is None:
            self.rows.append(Row(origin, refused_because=answered.reason))
            return
        for number, task in enumerate(answered.form.tasks):
            row = Row(origin, _to_example(task, origin, number))
            row.refused_because = self._judge(task, number)
            if not row.refused_because and row.example is not None:
                self._pool.add(task.instruction)
                self._grown.append((row.example, task))
            self.rows.append(row)

    def _judge(self, task: Task, number: int) -> str:
        method, words = self._method, words_of(task.instruction)
        if number >= method.per_request:
            return f"more than asked for: number {number + 1} of {method.per_request}"
        if len(self._grown) >= method.count:
            return f"more than wanted: {method.count} tasks there are"
        if len(words) < method.min_words:
            return f"too short: {len(words)} words"
        if len(words) > method.max_words:
            return f"too long: {len(words)} words"
        avoided = sorted(set(words) & set(method.avoid))
        if avoided:
            return f"not for a text model: it speaks of {avoided[0]!r}"
        like = self._pool.find_like(task.instruction)
        return f"near duplicate: ROUGE-L {like[1]:.2f} with {like[0]!r}" if like else ""


def _to_example(task: Task, origin: Origin, number: int) -> Example:
    question = f"{task.instruction}\n\n{task.input}" if task.input.strip() else task.instruction
    # Made from many: it belongs to no document and to no parent's split.
    parent = Example(id=origin.answer)
    return make_example(
        parent, "instruct", [Message("user", question), Message("assistant", task.output)], number=number
    )


def _draw_some(tasks: list[tuple[Example, Task]], count: int, salt: str) -> list[tuple[Example, Task]]:
    ranked = sorted(tasks, key=lambda each: hashlib.sha256(f"{salt}:{each[0].id}".encode()).digest())
    return ranked[:count]
