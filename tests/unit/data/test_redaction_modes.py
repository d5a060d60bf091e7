"""What is done with findings: masked, hashed, replaced by look-alikes, dropped, flagged or kept; in every column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Document
from espalier.data.flow.batch import MESSAGE, set_column, to_batch
from espalier.data.flow.outcome import Outcome, apply_outcome
from espalier.data.flow.plan import plan_step
from espalier.data.flow.record import load_outcome, save_outcome
from espalier.data.pii.names import Names
from espalier.data.pii.redact import STEP, Redactor, fingerprint, load_redactor
from espalier.data.pii.report import find_personal
from espalier.data.pii.spec import RedactSpec

MakeDocument = Callable[..., Document]
SALT = b"sixteen bytes at least"
TEXTS = ["mail ann@bell.example", "call +49 209 7654906, AKIAIOSFODNN7EXAMPLE", "nothing", "ann@bell.example, again"]


def prepare(salt: bytes = SALT, names: Names | None = None, **spec: object) -> Redactor:
    return Redactor(RedactSpec.model_validate(spec), names, salt=salt)


def batch_of(document: MakeDocument, texts: list[str], **tags: str) -> pa.RecordBatch:
    return to_batch([document(text, number, **tags) for number, text in enumerate(texts)])


def applied(redactor: Redactor, batch: pa.RecordBatch) -> tuple[list[dict[str, object]], Outcome]:
    outcome = redactor.apply(batch)
    return apply_outcome(batch, outcome).to_pylist(), outcome


def test_a_batch_is_redacted_and_counted_by_kind_and_document(document: MakeDocument) -> None:
    batch = batch_of(document, TEXTS, mail="cc@bell.example")
    rows, outcome = applied(prepare(), batch)
    assert [row["text"] for row in rows] == ["mail [EMAIL]", "call [PHONE], [SECRET]", "nothing", "[EMAIL], again"]
    assert {dict(row["tags"])["mail"] for row in rows} == {"[EMAIL]"}  # type: ignore[call-overload]
    assert outcome.counts == {
        "EMAIL": 2,
        "EMAIL documents": 2,
        "PHONE": 1,
        "PHONE documents": 1,
        "SECRET": 1,
        "SECRET documents": 1,
    }


def test_a_batch_with_nothing_in_it_is_not_touched(document: MakeDocument) -> None:
    outcome = prepare().apply(batch_of(document, ["plain words", ""]))
    assert outcome == Outcome()


def test_kinds_may_be_dropped_flagged_and_kept_each_in_its_own_way(document: MakeDocument) -> None:
    redactor = prepare(modes={"SECRET": "drop", "EMAIL": "flag", "PHONE": "keep"})
    batch = batch_of(document, TEXTS)
    rows, outcome = applied(redactor, batch)
    assert outcome.reasons.to_pylist() == [None, "personal data: SECRET", None, None]
    assert [row["text"] for row in rows] == [TEXTS[0], TEXTS[2], TEXTS[3]]
    assert [dict(row["tags"]).get("personal_data") for row in rows] == ["EMAIL", None, "EMAIL"]  # type: ignore[call-overload]
    assert outcome.counts == {
        "EMAIL documents": 2,
        "EMAIL flagged": 2,
        "PHONE documents": 1,
        "PHONE kept": 1,
        "SECRET documents": 1,
        "SECRET dropped": 1,
    }
    # what the exclusion file says of the dropped document holds no secret
    assert redactor.rewrite(batch.column("text"))[1].as_py() == "call +49 209 7654906, [SECRET]"


def test_table_rows_and_conversations_are_redacted_with_their_text(document: MakeDocument) -> None:
    batch = batch_of(document, ["a@b.example", "none"])
    row = {"text": "a@b.example", "nested": {"ip": ["8.8.8.8", 4111111111111111, None]}, "é": "ü"}
    batch = set_column(batch, "row", pa.array([json.dumps(row), ""], pa.large_string()))
    talk = [[], [{"role": "user", "content": "from 8.8.4.4"}, {"role": "assistant", "content": "ok", "weight": 0.5}]]
    batch = set_column(batch, "messages", pa.array(talk, pa.list_(MESSAGE)))
    batch = set_column(batch, "rejected", pa.array(talk, pa.list_(MESSAGE)))
    rows, outcome = applied(prepare(modes={"IP": "flag"}), batch)
    assert rows[0]["text"] == "[EMAIL]"
    assert json.loads(str(rows[0]["row"])) == {**row, "text": "[EMAIL]"}
    assert rows[1]["messages"] == rows[1]["rejected"]
    assert [dict(row["tags"])["personal_data"] for row in rows] == ["IP", "IP"]  # type: ignore[call-overload]
    assert outcome.counts == {"EMAIL": 1, "EMAIL documents": 1, "IP documents": 2, "IP flagged": 2}
    rows, _ = applied(prepare(), batch)
    assert rows[1]["messages"] == [
        {"role": "user", "content": "from [IP]", "weight": None},
        {"role": "assistant", "content": "ok", "weight": 0.5},
    ]


def test_a_slice_of_a_batch_is_redacted_as_the_rows_it_holds(document: MakeDocument) -> None:
    whole = batch_of(document, TEXTS)
    talk = [[{"role": "user", "content": text}] * 2 for text in TEXTS]
    whole = set_column(whole, "messages", pa.array(talk, pa.list_(MESSAGE)))
    rows, _ = applied(prepare(), whole)
    part, _ = applied(prepare(), whole.slice(1, 3))
    assert part == rows[1:]


# The same value, the same pseudonym


def test_a_pseudonym_is_the_same_in_every_spelling_document_and_run_and_another_under_another_salt() -> None:
    for mode in ("hash", "pseudonymise"):
        texts = ["ANN@bell.example", "ann@Bell.example", "+49 209 7654906", "0049 209-7654906", "bob@bell.example"]
        first, second, phone, spelt, other = [prepare(mode=mode).redact(text) for text in texts]
        assert first == second != other and phone == spelt
        assert prepare(mode=mode, salt=b"another sixteen bytes").redact(texts[0]) != first


def test_pseudonyms_look_like_what_they_stand_for_and_are_nobodys() -> None:
    redactor = prepare(names=Names(["Ann Bell"]), mode="pseudonymise")
    assert re.fullmatch(r"[a-z]+\.[a-z]+\.[a-z]{8}@mail\.example", redactor.redact("ann@bell.example"))
    assert re.fullmatch(r"\+999( \d{3}){4}", redactor.redact("+49 209 7654906"))
    assert re.fullmatch(r"2[45]\d(\.\d+){3}", redactor.redact("8.8.8.8"))
    assert re.fullmatch(r"2001:db8(:[0-9a-f]+){6}", redactor.redact("2001:4860:4860::8888"))
    assert re.fullmatch(r"Dear [A-Z][a-z]+ [A-Z]\. [A-Z][a-z]+,", redactor.redact("Dear Ann Bell,"))
    assert re.fullmatch(r"\[CARD:[a-z]{16}\]", redactor.redact("4111111111111111"))


def test_hashes_say_their_kind_and_hold_nothing_of_the_value() -> None:
    assert re.fullmatch(r"\[EMAIL:[b-t]{16}\]", prepare(mode="hash").redact("ann@bell.example"))


_VALUES = [
    "ann@bell.example",
    "+49 209 7654906",
    "(212) 555-0187 x12",
    "8.8.8.8",
    "2001:4860:4860::8888",
    "4111 1111 1111 1111",
    "Ann Bell",
    "DE89 3704 0044 0532 0130 00",
    "078-05-1120",
    "password: hunter2hunter2",
    "call",
    "-",
    "+",
    ".",
    "7",
    "Ada",
]


@given(st.lists(st.sampled_from(_VALUES), max_size=8), st.sampled_from(["", " ", ", "]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_redacting_what_is_pseudonymised_changes_nothing_more(values: list[str], glue: str) -> None:
    redactor = prepare(names=Names(["Ann Bell", "Ada Rowanmere"]), mode="pseudonymise")
    once = redactor.redact(glue.join(values))
    assert redactor.redact(once) == once


# The salt


def test_the_salt_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "salt.key").write_bytes(SALT + b"\n")
    monkeypatch.setenv("DATA_SALT", SALT.decode())
    by_file = RedactSpec(mode="hash", salt="salt.key")
    by_name = RedactSpec(mode="hash", salt="env:DATA_SALT")
    redacted = {load_redactor(spec, tmp_path).redact("a@b.example") for spec in (by_file, by_name)}
    assert redacted == {prepare(mode="hash").redact("a@b.example")}
    assert fingerprint(by_file, tmp_path) == fingerprint(by_name, tmp_path)
    monkeypatch.setenv("DATA_SALT", "another sixteen bytes")
    assert fingerprint(by_file, tmp_path) != fingerprint(by_name, tmp_path)
    assert SALT.decode() not in fingerprint(by_file, tmp_path)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"mode": "hash"}, InvalidInput, "needs a salt"),
        ({"modes": {"EMAIL": "pseudonymise"}}, InvalidInput, "needs a salt"),
        ({"mode": "hash", "salt": "none.key"}, NotFound, "no file none.key"),
        ({"mode": "hash", "salt": "env:NO_SUCH_SALT"}, NotFound, "no variable NO_SUCH_SALT"),
        ({"mode": "hash", "salt": "short.key"}, InvalidInput, "5 bytes, at least 16"),
        ({"modes": {"email": "drop"}}, InvalidInput, "`email` is no kind"),
        ({"recognizers": ["nobody"]}, NotFound, "no recognizer called 'nobody'"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(
    tmp_path: Path, spec: dict[str, object], error: type[Exception], message: str
) -> None:
    (tmp_path / "short.key").write_text("short")
    with pytest.raises(error, match=message):
        load_redactor(RedactSpec.model_validate(spec), tmp_path)


def test_the_step_is_declared_with_what_its_outcome_depends_on() -> None:
    assert STEP.id == "redact@2" and STEP.files == ("names", "salt") and STEP.fingerprint is fingerprint


def test_another_salt_in_the_environment_is_another_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RedactSpec(mode="hash", salt="env:DATA_SALT")
    keys = []
    for salt in (SALT.decode(), "another sixteen bytes", SALT.decode()):
        monkeypatch.setenv("DATA_SALT", salt)
        keys.append(plan_step(spec, tmp_path).key)
    assert keys[0] == keys[2] != keys[1]


def test_what_changed_in_table_rows_survives_a_checkpoint(document: MakeDocument, tmp_path: Path) -> None:
    batch = set_column(batch_of(document, ["x"]), "row", pa.array(['{"mail": "a@b.example"}'], pa.large_string()))
    outcome = prepare().apply(batch)
    save_outcome(tmp_path / "outcome.arrow", outcome, None, {"dropped": 0})
    loaded = load_outcome(tmp_path / "outcome.arrow")
    assert apply_outcome(batch, loaded).equals(apply_outcome(batch, outcome))
    assert apply_outcome(batch, loaded).column("row").to_pylist() == ['{"mail":"[EMAIL]"}']


# The report


def test_a_report_says_where_and_what_kind_but_never_what() -> None:
    table = find_personal(["none", "Grüße an ann@bell.example, PESEL 44051401359"])
    assert table.to_pylist() == [
        {"kind": "EMAIL", "rule": "email", "document": 1, "start": 9, "end": 25},
        {"kind": "NATIONAL_ID", "rule": "pl.pesel", "document": 1, "start": 33, "end": 44},
    ]
    assert find_personal([]).num_rows == find_personal(["none"]).num_rows == 0
    assert find_personal([]).schema == table.schema


def test_a_report_on_what_was_pseudonymised_has_nothing_to_say() -> None:
    text = "ann@bell.example, +49 209 7654906, 8.8.8.8, 2001:4860:4860::8888, 4111 1111 1111 1111, password: hunter2x"
    assert find_personal([text]).num_rows == 6
    for mode in ("mask", "hash", "pseudonymise"):
        assert find_personal([prepare(mode=mode).redact(text)]).num_rows == 0
