"""Asking a model many questions: each once, several at a time, journalled, within a budget, with progress.

The order in which answers come changes nothing: replies stand in the order of the questions, and a budget stops at the
same question whoever was fast, killed or resumed. Knows a `Generate` and what questions cost; knows no network and not
what is asked.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from typing import Generic, TypeVar

from espalier.core.errors import EspalierError, InvalidInput
from espalier.core.events import Emit, Event, ignore
from espalier.core.ids import digest_of
from espalier.core.money import format_usd
from espalier.core.ports import Generate
from espalier.core.types import Generation, Message, SamplingSpec, Usage
from espalier.data.generate.forms import Form, ask_again, can_be_mended, read_form
from espalier.data.generate.spec import BudgetSpec, ModelSpec
from espalier.store.journal import Journal, answer_key

_PROGRESS_EVERY_S = 0.5
_NOTHING = Usage(prompt_tokens=0, completion_tokens=0)
Item = TypeVar("Item")


@dataclass(slots=True)
class Spending:
    """What has been asked so far, by all askers that share it; resumed answers count like new ones."""

    budget: BudgetSpec = field(default_factory=BudgetSpec)
    requests: int = 0
    resumed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nusd: int = 0

    @property
    def is_spent(self) -> bool:
        return bool(self.why_spent())

    def why_spent(self) -> str:
        """The limit that was reached, or nothing."""
        if self.budget.max_requests and self.requests >= self.budget.max_requests:
            return f"max_requests {self.budget.max_requests}"
        tokens = self.prompt_tokens + self.completion_tokens
        return f"max_tokens {self.budget.max_tokens}" if 0 < self.budget.max_tokens <= tokens else ""

    def admit(self, wanted: int) -> int:
        """How many of the next `wanted` questions may be asked."""
        if self.is_spent:
            return 0
        return min(wanted, self.budget.max_requests - self.requests) if self.budget.max_requests else wanted


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or why there is none."""

    answer: Generation | None
    reason: str = ""

    @property
    def digest(self) -> str:
        """sha256 of the raw answer; empty without one."""
        return digest_answer(self.answer.text) if self.answer else ""


@dataclass(frozen=True, slots=True)
class Filled(Generic[Form]):
    """A reply read as the form asked for, or why it could not be. `mended`: at the second attempt."""

    form: Form | None
    reply: Reply
    reason: str = ""
    mended: bool = False


class Asker:
    """One model, asked with a journal and on a budget that others may share."""

    def __init__(
        self,
        generate: Generate,
        model: ModelSpec,
        *,
        journal: Journal,
        spending: Spending,
        emit: Emit = ignore,
    ) -> None:
        self.subject = model.subject
        self.answers: dict[str, Generation] = {}  # digest of the raw answer -> the answer, of all asked here
        self._generate = generate
        self._model = model
        self._journal = journal
        self._spending = spending
        self._emit = emit
        self._known: dict[str, Generation] = {}  # what this run asked, by key: budgets count these once
        # An endpoint is asked by many at once, each answer journalled as it comes; a base decodes a batch together.
        self._batch, self._parallel = (1, model.concurrency) if model.endpoint else (model.concurrency, 1)

    def ask(self, questions: Sequence[list[Message]], sampling: SamplingSpec, what: str = "questions") -> list[Reply]:
        """A reply for each question, in order; equal questions are asked once.

        Emits generate.progress. Raises whatever ends the asking as a whole: Unauthenticated, NotFound, RateLimited or
        Unavailable after all retries; InvalidInput when the model refuses every single question.
        """
        keys = [answer_key(self.subject, _digest_question(question), sampling) for question in questions]
        by_key = dict(zip(keys, questions, strict=True))
        fresh = [key for key in by_key if key not in self._known]
        progress = _Progress(what, len(fresh), self._spending, self._emit)
        for wave in _cut(fresh, self._wave(len(fresh))):
            admitted = wave[: self._spending.admit(len(wave))]
            found = self._fetch(admitted, by_key, sampling, progress)
            for key in admitted:
                self._account(key, found[key])
        progress.finish()
        self._refuse_hopeless(fresh)
        return [self._reply(key) for key in keys]

    def fill(
        self,
        questions: Sequence[list[Message]],
        sampling: SamplingSpec,
        form: type[Form],
        *,
        check: Callable[[Form], str] | None = None,
        what: str = "questions",
    ) -> list[Filled[Form]]:
        """`ask`, each reply read as `form`; one that cannot be is asked for once more.

        check: says what else is wrong with a form, or nothing; that too is told and asked again.
        """
        filled = [_read(reply, form, check) for reply in self.ask(questions, sampling, what)]
        broken = [i for i, each in enumerate(filled) if each.form is None and each.reply.answer is not None]
        broken = [i for i in broken if can_be_mended(filled[i].reason)]
        second = [ask_again(questions[i], _text(filled[i].reply), filled[i].reason) for i in broken]
        for i, reply in zip(broken, self.ask(second, sampling, f"{what} again") if second else [], strict=True):
            again = _read(reply, form, check)
            if reply.answer is not None:
                filled[i] = Filled(again.form, again.reply, again.reason, mended=again.form is not None)
        return filled

    def _wave(self, total: int) -> int:
        """Questions asked before tokens are counted: what may be spent over a budget of tokens."""
        return self._batch * self._parallel if self._spending.budget.max_tokens else max(1, total)

    def _account(self, key: str, answer: Generation) -> None:
        self._known[key] = answer
        if answer.finish_reason != "error":
            self.answers[digest_answer(answer.text)] = answer
        self._spending.requests += 1
        self._spending.prompt_tokens += answer.usage.prompt_tokens
        self._spending.completion_tokens += answer.usage.completion_tokens
        self._spending.cost_nusd += self._model.cost_nusd(answer.usage)

    def _reply(self, key: str) -> Reply:
        answer = self._known.get(key)
        if answer is None:
            return Reply(None, f"not asked: the budget was spent ({self._spending.why_spent()})")
        if answer.finish_reason == "error":
            return Reply(None, f"refused by the model: {answer.text}")
        return Reply(answer)

    def _fetch(
        self, keys: Sequence[str], by_key: dict[str, list[Message]], sampling: SamplingSpec, progress: _Progress
    ) -> dict[str, Generation]:
        """The answers of `keys`: from the journal, else asked for in batches, several at a time."""
        found = {key: answer for key in keys if (answer := self._journal.find(key)) is not None}
        self._spending.resumed += len(found)
        progress.resume(len(found))
        # A batch is asked as a whole even where some of it is known: a sampling base draws by place in the batch.
        batches = [batch for batch in _cut(keys, self._batch) if any(key not in found for key in batch)]
        pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="asking")
        waiting: list[Future[dict[str, Generation]]] = []
        try:
            waiting = [pool.submit(self._ask_batch, batch, by_key, sampling) for batch in batches]
            for done in as_completed(waiting):
                answers = done.result()
                progress.take([answer for key, answer in answers.items() if key not in found], self._model)
                found.update((key, answer) for key, answer in answers.items() if key not in found)
        except BaseException:
            # Nobody waits for what is in flight: whoever owns the model closes it, and that ends those threads.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        return found

    def _ask_batch(
        self, keys: Sequence[str], by_key: dict[str, list[Message]], sampling: SamplingSpec
    ) -> dict[str, Generation]:
        answers = self._generate([by_key[key] for key in keys], sampling)
        if len(answers) != len(keys):
            raise EspalierError(f"{len(keys)} questions got {len(answers)} answers")
        found = dict(zip(keys, answers, strict=True))
        # A refusal is no answer: asked again after a restart, it may be answered.
        kept = [(key, answer) for key, answer in found.items() if answer.finish_reason != "error"]
        if kept:
            self._journal.add(kept)
        return found

    def _refuse_hopeless(self, keys: Sequence[str]) -> None:
        """A model that has answered nothing yet and refuses all of these is one asked in the wrong way."""
        refused = [self._known[key].text for key in keys if key in self._known]
        if refused and not self.answers:
            raise InvalidInput(
                f"{self.subject} refuses every question: {refused[0]}",
                hint="check the model's name, sampling, json_mode and length_field",
            )


class _Progress:
    """Events about one round of questions, at most two a second."""

    def __init__(self, what: str, total: int, spending: Spending, emit: Emit) -> None:
        self._what = what
        self._total = total
        self._spending = spending
        self._emit = emit
        self._began_s = self._told_s = time.monotonic()
        self._resumed = self._asked = 0
        self._now = Spending()

    def resume(self, count: int) -> None:
        self._resumed += count

    def take(self, answers: Sequence[Generation], model: ModelSpec) -> None:
        self._asked += len(answers)
        for answer in answers:
            self._now.prompt_tokens += answer.usage.prompt_tokens
            self._now.completion_tokens += answer.usage.completion_tokens
            self._now.cost_nusd += model.cost_nusd(answer.usage)
        if time.monotonic() - self._told_s >= _PROGRESS_EVERY_S:
            self._told_s = time.monotonic()
            self._tell()

    def finish(self) -> None:
        if self._total:
            self._tell()

    def _tell(self) -> None:
        done = self._resumed + self._asked
        each_s = (time.monotonic() - self._began_s) / max(1, self._asked)
        self._emit(
            Event(
                "generate.progress",
                {
                    "what": self._what,
                    "done": done,
                    "total": self._total,
                    "resumed": self._resumed,
                    "eta_ms": round(1000 * each_s * (self._total - done)),
                    "prompt_tokens": self._now.prompt_tokens,
                    "completion_tokens": self._now.completion_tokens,
                    "cost": format_usd(self._now.cost_nusd),
                },
            )
        )


def digest_answer(text: str) -> str:
    """sha256 (hex) of a raw answer's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _read(reply: Reply, form: type[Form], check: Callable[[Form], str] | None) -> Filled[Form]:
    if reply.answer is None:
        return Filled(None, reply, reply.reason)
    read = read_form(reply.answer, form)
    if isinstance(read, str):
        return Filled(None, reply, read)
    wrong = check(read) if check else ""
    return Filled(None, reply, wrong) if wrong else Filled(read, reply)


def _text(reply: Reply) -> str:
    return reply.answer.text if reply.answer else ""


def _digest_question(messages: list[Message]) -> str:
    return digest_of([asdict(message) for message in messages])


def _cut(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
