"""Records, versions, pointers, runs, artifacts and the step cache, on every database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from espalier.core.config import StoreConfig
from espalier.core.errors import Conflict, InvalidInput, NotFound
from espalier.core.types import Run, Spec
from espalier.store.cache import CacheRow
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace

AtOnce = Callable[[int, Callable[[int], Any]], list[Any]]


class Note(Spec):
    words: str
    count: int = 0


def test_a_record_reads_back_as_it_was_written(store: Store) -> None:
    store.records.put("note", "n1", Note(words="grüße \u0001 \U0001f333", count=2**53))
    assert store.records.get("note", "n1", Note) == Note(words="grüße \u0001 \U0001f333", count=2**53)


def test_the_same_record_again_changes_nothing_and_another_is_refused(store: Store) -> None:
    store.records.put("note", "n1", Note(words="a"))
    store.records.put("note", "n1", Note(words="a"))
    with pytest.raises(Conflict):
        store.records.put("note", "n1", Note(words="b"))
    assert store.records.get("note", "n1", Note).words == "a"


def test_a_missing_record_names_the_nearest_one(store: Store) -> None:
    store.records.put("note", "shopping", Note(words="a"))
    with pytest.raises(NotFound) as caught:
        store.records.get("note", "shoping", Note)
    assert "shopping" in caught.value.hint


def test_records_are_listed_newest_first_page_by_page(store: Store) -> None:
    for number in range(7):
        store.records.put("note", f"n{number}", Note(words=str(number)))
    store.records.put("other", "x", Note(words="not listed"))
    first = store.records.list("note", Note, limit=3)
    second = store.records.list("note", Note, limit=3, before=f"n{first[-1].words}")
    third = store.records.list("note", Note, limit=3, before=f"n{second[-1].words}")
    assert [note.words for note in (*first, *second, *third)] == ["6", "5", "4", "3", "2", "1", "0"]


class Parcel(Spec):
    id: str
    colour: str
    sender: Sender | None = None


class Sender(Spec):
    name: str
    agent: str = ""


PARCELS = [
    Parcel(
        id=f"p{number:02d}",
        colour=("red", "blue", "RED")[number % 3],
        sender=None if number % 4 == 0 else Sender(name=f"s{number % 2}", agent="a1" if number % 5 == 0 else ""),
    )
    for number in range(30)
]


@pytest.fixture
def parcels(store: Store) -> Store:
    for number, parcel in enumerate(PARCELS):
        store.records.put("parcel", parcel.id, parcel)
        store.records.put("decoy", parcel.id, parcel)
        for target in ("sent", "kept")[: number % 3]:  # the last move counts: nowhere, sent, kept
            store.records.set_pointer(f"parcel:{parcel.id}", target)
    return store


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, lambda parcel: True),
        ({"where": [{}]}, lambda parcel: True),
        ({"where": [{"colour": "red"}]}, lambda parcel: parcel.colour == "red"),
        ({"where": [{"colour": "re_"}]}, lambda parcel: False),
        ({"where": [{"sender.name": None}]}, lambda parcel: parcel.sender is None),
        ({"where": [{"sender.nothing": "x"}]}, lambda parcel: False),
        (
            {"where": [{"sender.agent": "a1"}, {"sender.agent": "", "sender.name": "s1"}]},
            lambda parcel: parcel.sender is not None and (parcel.sender.agent or parcel.sender.name) in ("a1", "s1"),
        ),
        ({"pointed": ("parcel:", "sent")}, lambda parcel: int(parcel.id[1:]) % 3 == 1),
        (
            {"where": [{"colour": "blue"}], "pointed": ("parcel:", "sent")},
            lambda parcel: parcel.colour == "blue" and int(parcel.id[1:]) % 3 == 1,
        ),
    ],
)
def test_a_filtered_list_has_no_short_page_before_its_last(
    parcels: Store, limit: int, oldest_first: bool, filters: dict[str, Any], wanted: Callable[[Parcel], bool]
) -> None:
    expected = [parcel.id for parcel in PARCELS if wanted(parcel)][:: 1 if oldest_first else -1]
    found: list[str] = []
    while True:
        last = found[-1] if found else ""
        cursor = {"after": last} if oldest_first else {"before": last}
        page = parcels.records.list("parcel", Parcel, limit, **cursor, **filters)
        found += [parcel.id for parcel in page]
        if len(page) < limit:
            break
    assert found == expected


def test_no_record_is_called_by_what_is_no_text(store: Store) -> None:
    assert not store.records.has("note", "n\0")


@pytest.mark.parametrize("table", ["records", "pointers", "audit", "entries"])
@pytest.mark.parametrize("change", ["UPDATE {table} SET {column} = 'x'", "DELETE FROM {table}"])
def test_the_database_itself_refuses_to_change_what_is_append_only(store: Store, table: str, change: str) -> None:
    store.records.put("note", "n1", Note(words="a"))
    store.records.set_pointer("p", "n1")
    store.audit.append("me", "a.b", "c")
    store.ledger.set_limit("team", 10)
    store.ledger.reserve("r", ["team"], 1)
    column = {"records": "kind", "pointers": "target", "audit": "actor", "entries": "kind"}[table]
    with pytest.raises(Conflict, match="append-only"), store.database.write() as connection:
        connection.execute(text(change.format(table=table, column=column)))


def test_versions_count_up_by_name(store: Store) -> None:
    assert [store.records.next_version("dataset", "a") for _ in range(3)] == [1, 2, 3]
    assert store.records.next_version("dataset", "b") == 1
    assert store.records.next_version("model", "a") == 1


def test_a_version_number_is_given_to_one_caller_only(store: Store, at_once: AtOnce) -> None:
    numbers = at_once(12, lambda _: store.records.next_version("dataset", "a"))
    assert sorted(map(int, numbers)) == list(range(1, 13))


def test_a_failed_transaction_gives_its_version_back(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.records.next_version("dataset", "a")
        raise RuntimeError
    assert store.records.next_version("dataset", "a") == 1


def test_a_pointer_moves_and_remembers_every_move(store: Store) -> None:
    store.records.set_pointer("model:a@production", "v1", actor="ann")
    store.records.set_pointer("model:a@production", "v2", actor="bob")
    moved = store.records.set_pointer("model:a@production", "v1", actor="ann")
    assert (moved.target, moved.revision) == ("v1", 3)
    assert [(p.target, p.actor) for p in store.records.pointer_history("model:a@production")] == [
        ("v1", "ann"),
        ("v2", "bob"),
        ("v1", "ann"),
    ]


def test_a_pointer_that_is_not_where_it_was_expected_stays(store: Store) -> None:
    store.records.set_pointer("p", "v1", expect=None)
    for wrong in (None, "v0"):
        with pytest.raises(Conflict):
            store.records.set_pointer("p", "v2", expect=wrong)
    assert store.records.set_pointer("p", "v2", expect="v1").target == "v2"
    assert store.records.get_pointer("p").target == "v2"


def test_of_many_who_move_a_pointer_from_the_same_place_one_succeeds(store: Store, at_once: AtOnce) -> None:
    store.records.set_pointer("p", "start")
    results = at_once(10, lambda index: store.records.set_pointer("p", f"v{index}", expect="start"))
    assert sum(isinstance(result, Conflict) for result in results) == 9
    assert len(store.records.pointer_history("p")) == 2


def test_pointers_are_listed_by_prefix_with_case_and_wildcards_taken_literally(store: Store) -> None:
    for name in ("model:a@x", "model:b@x", "Model:c@x", "mod_l:d"):
        store.records.set_pointer(name, "v1")
    assert [pointer.name for pointer in store.records.list_pointers("model:")] == ["model:a@x", "model:b@x"]
    assert [pointer.name for pointer in store.records.list_pointers("mod_")] == ["mod_l:d"]


def test_what_one_transaction_writes_commits_at_once_or_not_at_all(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("a")
    staged = store.artifacts.stage("report", tmp_path / "out")
    with pytest.raises(RuntimeError), store.transaction():
        store.artifacts.add(staged)
        store.records.put("note", "n", Note(words="a"))
        store.audit.append("me", "x.y", "z")
        raise RuntimeError
    assert store.artifacts.find(staged.digest) is None
    assert not store.records.has("note", "n")
    assert store.audit.head()[0] == 0


def test_an_inner_failure_that_is_caught_undoes_the_inner_part_only(store: Store) -> None:
    with store.transaction():
        store.records.put("note", "kept", Note(words="a"))
        with pytest.raises(RuntimeError), store.transaction():
            store.records.put("note", "undone", Note(words="b"))
            raise RuntimeError
    assert store.records.has("note", "kept")
    assert not store.records.has("note", "undone")


def test_a_transaction_of_one_thread_is_not_seen_by_another_before_it_commits(store: Store) -> None:
    seen: list[bool] = []
    with store.transaction():
        store.records.put("note", "n", Note(words="a"))
        reader = threading.Thread(target=lambda: seen.append(store.records.has("note", "n")))
        reader.start()
        reader.join()
    assert seen == [False]
    assert store.records.has("note", "n")


def test_a_run_changes_field_by_field_and_wrong_changes_are_refused(store: Store) -> None:
    store.runs.create(Run(id="run_1", step="train.sft@1", spec={"lr": 0.1}, created_ms=1))
    store.runs.update("run_1", status="running", started_ms=2)
    run = store.runs.update("run_1", status="succeeded", metrics={"loss": 0.5})
    assert (run.status, run.started_ms, run.metrics) == ("succeeded", 2, {"loss": 0.5})
    with pytest.raises(ValueError, match="status"):
        store.runs.update("run_1", status="bogus")
    assert store.runs.get("run_1") == run


def test_runs_are_found_by_parent_status_and_page(store: Store) -> None:
    for number in range(5):
        parent = "run_0" if number else ""
        store.runs.create(Run(id=f"run_{number}", step="s@1", parent=parent, created_ms=number // 2, status="queued"))
    store.runs.update("run_3", status="failed")
    assert [run.id for run in store.runs.list(parent="run_0")] == ["run_4", "run_3", "run_2", "run_1"]
    assert [run.id for run in store.runs.list(status="failed")] == ["run_3"]
    assert [run.id for run in store.runs.list(parent="")] == ["run_0"]
    pages = [run.id for run in store.runs.list(limit=2)]
    while len(pages) < 5:
        pages += [run.id for run in store.runs.list(limit=2, before=pages[-1])]
    assert pages == ["run_4", "run_3", "run_2", "run_1", "run_0"]


def test_the_same_content_is_one_artifact_whoever_makes_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x.txt").write_text("x")
    first = store.artifacts.put("dataset", tmp_path / "a", {"rows": "1"}, "run_1")
    second = store.artifacts.put("dataset", tmp_path / "a", {"rows": "1"}, "run_2")
    assert first == second
    assert second.made_by == "run_1"
    assert store.artifacts.put("report", tmp_path / "a", {"rows": "1"}).digest != first.digest
    assert store.artifacts.put("dataset", tmp_path / "a", {"rows": "2"}).digest != first.digest


def test_lineage_is_walked_both_ways(store: Store, tmp_path: Path) -> None:
    digests = []
    for name in ("documents", "dataset", "adapter"):
        (tmp_path / name).write_text(name)
        digests.append(store.artifacts.put(name, tmp_path / name).digest)
    documents, dataset, adapter = digests
    store.artifacts.link(dataset, documents, "documents")
    store.artifacts.link(adapter, dataset, "dataset")
    store.artifacts.link(adapter, dataset, "dataset")
    assert [(edge.parent, edge.role) for edge in store.artifacts.parents(adapter)] == [(dataset, "dataset")]
    assert [edge.child for edge in store.artifacts.children(documents)] == [dataset]


def test_a_cache_row_is_found_by_key_and_by_what_a_step_had_last(store: Store) -> None:
    def row(key: str) -> CacheRow:
        return CacheRow(key=key, pipeline="p", node="n", run=f"run_{key}", outputs={"o": key}, ingredients={"k": key})

    store.cache.put(row("one"))
    store.cache.put(row("two"))
    latest = store.cache.latest("p", "n")
    assert latest is not None
    assert latest.key == "two"
    store.cache.use("one", "p", "n")
    again = store.cache.latest("p", "n")
    assert again is not None
    assert again.ingredients == {"k": "one"}
    store.cache.put(row("one"))
    assert store.cache.find("one") is not None
    assert store.cache.find("three") is None


def test_a_database_that_is_there_is_opened_as_it_is(store: Store, database_url: str) -> None:
    store.records.put("note", "n", Note(words="a"))
    again = open_store(store.workspace, StoreConfig(url=database_url))
    assert again.records.has("note", "n")
    again.close()


def test_a_database_of_a_newer_espalier_is_refused(store: Store, database_url: str) -> None:
    with store.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="9999"):
        open_store(store.workspace, StoreConfig(url=database_url))


def test_the_migrations_make_exactly_the_tables_the_code_uses(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from espalier.store.tables import metadata

    with store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_all_who_open_a_new_database_at_once_succeed(tmp_path: Path, database_url: str, at_once: AtOnce) -> None:
    workspace = init_workspace(tmp_path)
    opened = at_once(6, lambda _: open_store(workspace, StoreConfig(url=database_url)))
    assert all(isinstance(one, Store) for one in opened), opened
    for one in opened:
        one.close()


def test_a_url_of_no_known_database_is_refused_without_showing_its_password(store: Store) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_store(store.workspace, StoreConfig(url="nosuch://me:secret@host/x"))
    assert "secret" not in str(caught.value)
