from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import Conflict, DigestMismatch, InvalidInput, NotFound
from espalier.core.types import Prompt
from espalier.prompts.catalog import (
    diff_prompts,
    get_prompt,
    list_aliases,
    list_prompts,
    list_versions,
    read_prompt,
    save_prompt,
    set_alias,
    write_prompt,
)
from espalier.prompts.template import make_prompt
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path))
    yield opened
    opened.close()


def save(store: Store, template: str, name: str = "support", system: str = "") -> Prompt:
    return save_prompt(store, make_prompt(name, template, system), actor="ann")


def test_a_new_content_is_a_new_version_and_an_old_one_the_old(store: Store) -> None:
    first, second = save(store, "A {{ input }}"), save(store, "B {{ input }}")
    assert (first.version, second.version, second.created_by) == (1, 2, "ann")
    assert save(store, "A {{ input }}") == first
    assert [prompt.version for prompt in list_versions(store, "support")] == [2, 1]
    assert [event.action for event in store.audit.list()] == ["prompts.save", "prompts.save"]


def test_a_prompt_is_found_by_version_alias_digest_and_as_the_latest(store: Store) -> None:
    first, second = save(store, "A"), save(store, "B")
    set_alias(store, "support@v1", "production", actor="ann")
    assert get_prompt(store, "prompt:support@v1") == first
    assert get_prompt(store, "support@production") == first
    assert get_prompt(store, f"support@sha256:{second.digest}") == second
    assert get_prompt(store, "support") == second
    assert list_aliases(store, "support") == {"latest": "v2", "production": "v1"}


def test_an_alias_moves_only_from_where_it_is_expected(store: Store) -> None:
    save(store, "A"), save(store, "B")
    set_alias(store, "support@v1", "production", expect=None)
    with pytest.raises(Conflict):
        set_alias(store, "support@v2", "production", expect="v2")
    set_alias(store, "support@v2", "production", expect="v1")
    assert get_prompt(store, "support@production").version == 2


@pytest.mark.parametrize("alias", ["latest", "v3", "Production", "sha256:" + "0" * 64])
def test_an_alias_is_a_word_of_the_users_own(store: Store, alias: str) -> None:
    save(store, "A")
    with pytest.raises(InvalidInput):
        set_alias(store, "support", alias)


def test_what_is_not_there_is_said_with_what_is(store: Store) -> None:
    save(store, "A")
    for ref, said, hint in (
        ("suport", "no prompt suport", "`support`"),
        ("support@prod", "no 'prod'", "latest"),
        ("support@v7", "no prompt support@v7", "support@v1"),
    ):
        with pytest.raises(NotFound, match=said) as caught:
            get_prompt(store, ref)
        assert hint in caught.value.hint


def test_the_list_shows_the_latest_of_every_name(store: Store) -> None:
    for name, template in (("support", "A"), ("billing", "X"), ("support", "B")):
        save(store, template, name)
    assert [prompt.ref for prompt in list_prompts(store)] == ["prompt:billing@v1", "prompt:support@v2"]


def test_a_diff_shows_the_turn_and_the_line_that_changed(store: Store) -> None:
    old, new = save(store, "one\ntwo", system="S"), save(store, "one\nthree", system="S")
    assert diff_prompts(old, old) == ""
    shown = diff_prompts(old, new).split("\n")
    assert shown[:2] == ["--- prompt:support@v1", "+++ prompt:support@v2"]
    assert "-two" in shown and "+three" in shown and "-S" not in shown


def test_an_artifact_holds_the_content_and_neither_version_nor_day(store: Store, tmp_path: Path) -> None:
    saved = save(store, "A {{ input }}", system="S")
    for name, prompt in (("one", saved), ("two", make_prompt("support", "A {{ input }}", "S"))):
        write_prompt(tmp_path / name, prompt)
    file = tmp_path / "one" / "prompt.json"
    assert file.read_bytes() == (tmp_path / "two" / "prompt.json").read_bytes()
    assert read_prompt(tmp_path / "one").digest == saved.digest
    file.write_text(file.read_text().replace("A {{", "Z {{"))
    with pytest.raises(DigestMismatch, match="not what its digest says"):
        read_prompt(tmp_path / "one")


def test_saving_at_once_gives_each_content_one_version(store: Store) -> None:
    saved: list[Prompt] = []
    gate = threading.Barrier(8)

    def work(i: int) -> None:
        gate.wait()
        saved.append(save(store, f"template {i % 4}"))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(saved) == 8
    assert len({(prompt.template, prompt.version) for prompt in saved}) == 4
    assert [prompt.version for prompt in list_versions(store, "support")] == [4, 3, 2, 1]
