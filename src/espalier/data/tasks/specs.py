"""`TaskSpec`: what a recipe's `task` may be. One line for each kind."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from espalier.data.tasks.chat import ChatTask
from espalier.data.tasks.classification import ClassificationTask
from espalier.data.tasks.code import CodeTask
from espalier.data.tasks.completion import CompletionTask
from espalier.data.tasks.dialogue import DialogueTask
from espalier.data.tasks.extraction import ExtractionTask
from espalier.data.tasks.preference import PreferenceTask
from espalier.data.tasks.questions import QuestionTask
from espalier.data.tasks.rawtext import TextTask

TaskSpec = Annotated[
    ExtractionTask
    | ChatTask
    | CompletionTask
    | TextTask
    | QuestionTask
    | ClassificationTask
    | CodeTask
    | PreferenceTask
    | DialogueTask,
    Field(discriminator="kind"),
]
