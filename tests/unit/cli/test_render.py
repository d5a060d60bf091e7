"""What is printed of an answer: tables, fields, and things within things."""

from __future__ import annotations

from typing import Any

import pytest

from espalier.cli.options import Options
from espalier.cli.render import show_answer
from espalier.core.operations import Operation
from espalier.core.types import Spec


class Score(Spec):
    name: str
    value: float


class Report(Spec):
    label: str
    scores: tuple[Score, ...] = ()


class Engine(Spec):
    base: str
    memory_bytes: int
    idle_s: float
    spent_nusd: int
    adapters: tuple[Score, ...] = ()


class Version(Spec):
    name: str
    best: Score | None = None
    scores: tuple[Score, ...] = ()
    reports: tuple[Report, ...] = ()
    status: str = "approved"


def shown(answer: Any, capsys: pytest.CaptureFixture[str]) -> list[str]:
    operation: Any = Operation
    show_answer(answer, operation, Options())
    return capsys.readouterr().out.splitlines()


def test_what_is_within_a_thing_stands_indented_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    version = Version(
        name="a",
        best=Score(name="exact", value=0.5),
        scores=(Score(name="exact", value=0.5), Score(name="f1", value=0.25)),
        reports=(Report(label="first", scores=(Score(name="f1", value=0.25),)), Report(label="second")),
    )
    assert shown(version, capsys) == [
        "name    a",
        "best",
        "  name   exact",
        "  value  0.5",
        "scores",
        "  NAME   VALUE",
        "  exact    0.5",
        "  f1      0.25",
        "reports",
        "  label  first",
        "  scores",
        "    NAME  VALUE",
        "    f1     0.25",
        "",
        "  label  second",
        "status  approved",
    ]


def test_what_holds_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(Version(name="a"), capsys) == ["name    a", "status  approved"]


def test_the_head_of_a_column_leaves_the_unit_to_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Engine(base="b", memory_bytes=2_000_000, idle_s=3.0, spent_nusd=500_000_000)]
    assert [line.split() for line in shown(rows, capsys)] == [
        ["BASE", "MEMORY", "IDLE", "SPENT"],
        ["b", "2.0", "MB", "3.0", "s", "$0.50"],
    ]


def test_within_a_thing_a_sentence_keeps_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    why = "ann submitted it, so that someone else than ann has to approve it"
    assert any(why in line for line in shown(Version(name="a", scores=(Score(name=why, value=1),)), capsys))
