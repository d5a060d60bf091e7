"""Prompts named in a recipe's task are replaced by their text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.tasks.classification import ClassificationTask
from espalier.data.tasks.completion import CompletionTask
from espalier.data.tasks.task import prepare_task
from espalier.prompts.catalog import save_prompt
from espalier.prompts.template import make_prompt
from espalier.services.context import Context, open_context
from espalier.services.taskprompts import fill_prompts
from espalier.store.workspace import init_workspace


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = open_context(tmp_path, actor="ada")
    yield opened
    opened.close()


def test_a_prompt_s_template_and_system_text_stand_in_the_task(context: Context) -> None:
    save_prompt(context.store, make_prompt("triage", "Sort this:\n{{ input }}", "Be brief."))
    save_prompt(context.store, make_prompt("triage", "Sort: {{ input }}"))
    first = fill_prompts(context.store, ClassificationTask(template="prompt:triage@v1"))
    assert first.template == "Sort this:\n{{ input }}" and first.system == "{% raw %}Be brief.{% endraw %}"
    assert fill_prompts(context.store, ClassificationTask(template="prompt:triage")).template == "Sort: {{ input }}"
    own = fill_prompts(context.store, ClassificationTask(template="prompt:triage@v1", system="{{ 'Mine.' }}"))
    assert own.system == "{{ 'Mine.' }}"
    plain = ClassificationTask()
    assert fill_prompts(context.store, plain) is plain


def test_a_prompt_nobody_saved_is_not_found(context: Context) -> None:
    with pytest.raises(NotFound):
        fill_prompts(context.store, CompletionTask(prompt="prompt:nowhere"))


def test_without_a_catalogue_a_prompt_s_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match="prompt:faq@v1 is a prompt of a workspace's catalogue") as refusal:
        prepare_task(CompletionTask(prompt="prompt:faq@v1"), Path())
    assert refusal.value.where == "task.prompt"
