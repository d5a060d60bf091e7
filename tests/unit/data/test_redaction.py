from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Document
from espalier.data.flow.batch import to_batch, to_documents
from espalier.data.flow.outcome import apply_outcome
from espalier.data.pii.detect import Detector
from espalier.data.pii.names import Names, read_names
from espalier.data.pii.redact import Redactor, load_redactor
from espalier.data.pii.rules import KINDS
from espalier.data.pii.spec import RedactSpec
from espalier.data.readers.folder import find_sources
from espalier.data.readers.plugin import known_suffixes
from espalier.data.readers.reading import read_file
from espalier.data.synth.tickets.folder import write_tickets

MakeDocument = Callable[..., Document]


def redact(text: str, **spec: object) -> str:
    return Redactor(RedactSpec.model_validate(spec)).redact(text)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to ann.bell+x@mail.example.org, please", "write to [EMAIL], please"),
        ("card 4111 1111 1111 1111 12/27", "card [CARD] 12/27"),
        ("card 4111-1111-1111-1111.", "card [CARD]."),
        ("amex 378282246310005", "amex [CARD]"),
        ("to DE89 3704 0044 0532 0130 00 today", "to [IBAN] today"),
        ("to GB29NWBK60161331926819", "to [IBAN]"),
        ("pay BE68 5390 0754 7034 NOW", "pay [IBAN] NOW"),
        ("ssn 078-05-1120", "ssn [SSN]"),
        ("from 192.0.2.244.", "from [IP]."),
        ("call +49 209 7654906 or +1 (589) 555-0102", "call [PHONE] or [PHONE]"),
        ("(212) 555-0187 x12, fax 212-555-0188", "[PHONE], fax [PHONE]"),
        ("Tel. 0171 2345678", "Tel. [PHONE]"),
        ("please call me at 555-0142 today", "please call me at [PHONE] today"),
        ("key sk-proj-abcdefghijklmnop1234", "key [SECRET]"),
        ("AKIAIOSFODNN7EXAMPLE", "[SECRET]"),
        ("password: hunter2hunter2", "password: [SECRET]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nab\ncd\n-----END RSA PRIVATE KEY-----", "[SECRET]"),
    ],
)
def test_personal_data_is_replaced_by_its_kind(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "the order was PO-29537 of 2023-12-30",
        "card 4111 1111 1111 1112",  # Luhn fails
        "to DE89 3704 0044 0532 0130 01",  # mod 97 fails
        "to ZZ89 3704 0044 0532 0130 00",  # no such country
        "ssn 000-05-1120 and 666-05-1120",
        "version 1.2.3.4.5 and v10.2.3.4 and 999.1.1.1",
        "localhost is 127.0.0.1",
        "see icon@2x.png",
        "from 2023-06-25 to 2023-06-27 and 05/05/2025",
        "serial number 4837-V, part 123-45-67890",
        "we use 28 of them at 1000000000000000",
        "",
    ],
)
def test_what_only_looks_like_personal_data_is_left(text: str) -> None:
    assert redact(text) == text


SALT = b"sixteen bytes at least"
MODES = ("mask", "hash", "pseudonymise")


@given(
    st.lists(
        st.sampled_from(["a@b.example", "+49 209 7654906", "4111 1111 1111 1111", "Ann Bell", "x", " ", "7", "[", "]"])
    ),
    st.sampled_from(MODES),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_redacting_twice_is_redacting_once(parts: list[str], mode: str) -> None:
    redactor = Redactor(RedactSpec.model_validate({"mode": mode}), Names(["Ann Bell"]), salt=SALT)
    once = redactor.redact(" ".join(parts))
    assert redactor.redact(once) == once


@given(st.text(max_size=120))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_findings_lie_in_the_text_in_order_without_overlap(text: str) -> None:
    detector = Detector(KINDS, [Names(["Ann Bell", "Noor"])])
    findings = dict(detector.find(pa.array([text], pa.large_string()))).get(0, [])
    edges = [edge for finding in findings for edge in (finding.start, finding.end)]
    assert edges == sorted(edges) and all(0 <= edge <= len(text.encode()) for edge in edges)
    assert all(finding.start < finding.end for finding in findings)


def test_offsets_hold_after_letters_of_many_bytes() -> None:
    assert redact("Größe – 漢字 🙂 a@b.example 🙂") == "Größe – 漢字 🙂 [EMAIL] 🙂"


# Names


def test_names_are_found_in_full_in_parts_and_in_reverse() -> None:
    names = Names(["Ann O'Neill-Bell", "Noor Abbas"])
    redactor = Redactor(RedactSpec(), names)
    text = "ANN O'NEILL-BELL met Abbas, Noor; noor\nabbas and Noor. Then Abbas Noor left."
    assert redactor.redact(text) == "[NAME] met [NAME]; [NAME] and [NAME]. Then [NAME] left."


def test_parts_of_names_that_stand_together_are_one_name() -> None:
    redactor = Redactor(RedactSpec(), Names(["Ann Bell", "Noor Abbas"]))
    examined = redactor.examine(pa.array(["Ask for Noor Bell, or Abbas."]).cast(pa.large_string()))
    assert examined.texts.to_pylist() == ["Ask for [NAME], or [NAME]."] and examined.found == {0: {"NAME": 2}}


def test_a_common_word_that_is_part_of_a_name_is_left_in_lower_case() -> None:
    redactor = Redactor(RedactSpec(), Names(["May Long"]))
    assert redactor.redact("You may wait long. Ask May Long.") == "You may wait long. Ask [NAME]."


@pytest.mark.parametrize("mode", MODES)
def test_a_name_that_is_called_like_a_kind_does_not_redact_the_redaction(mode: str) -> None:
    redactor = Redactor(RedactSpec.model_validate({"mode": mode}), Names(["Email Phone", "Name"]), salt=SALT)
    once = redactor.redact("Ask Email Phone or Name at a@b.example")
    assert "a@b" not in once and "Phone" not in once and redactor.redact(once) == once


def test_parts_stay_when_only_full_names_are_wanted() -> None:
    redactor = Redactor(RedactSpec(), Names(["May Long"], parts=False))
    assert redactor.redact("May came with May Long") == "May came with [NAME]"


def test_names_are_read_from_the_columns_that_are_called_so(tmp_path: Path) -> None:
    path = tmp_path / "contacts.csv"
    path.write_text("id,name,firm\n1,Ann Bell,Oak\n2,,Elm\n")
    assert read_names(path) == ["Ann Bell"]
    assert read_names(path, ("firm",)) == ["Oak", "Elm"]
    with pytest.raises(InvalidInput, match="no column 'nmae'") as refusal:
        read_names(path, ("nmae",))
    assert "`name`" in refusal.value.hint
    with pytest.raises(NotFound):
        read_names(tmp_path / "none.csv")


# Documents


def test_texts_and_tags_are_redacted_and_counted_by_kind_once(document: MakeDocument) -> None:
    batch = to_batch([document("Mail: a@b.example, c@d.example", 1, mail="a@b.example", line="3")])
    outcome = Redactor(RedactSpec()).apply(batch)
    (out,) = to_documents(apply_outcome(batch, outcome))
    assert out.text == "Mail: [EMAIL], [EMAIL]" and out.tags == {"format": "txt", "mail": "[EMAIL]", "line": "3"}
    assert outcome.counts == {"EMAIL": 2, "EMAIL documents": 1}


def test_nothing_planted_in_the_ticket_folder_is_missed_but_names_nobody_listed(tmp_path: Path) -> None:
    folder = write_tickets(tmp_path, seed=7, files=60)
    sources, _ = find_sources(folder.documents, suffixes=known_suffixes())
    documents = [document for source in sources for document in read_file(source)[0]]
    redactor = load_redactor(RedactSpec(names="contacts.csv"), folder.contacts.parent)
    batch = to_batch(documents)
    redacted = to_documents(apply_outcome(batch, redactor.apply(batch)))
    listed = set(read_names(folder.contacts))
    planted, missed = Counter[str](), Counter[str]()
    for old, new in zip(documents, redacted, strict=True):
        for plant in folder.plants[old.span.uri]:
            if plant.value in old.text and (plant.kind != "name" or plant.value in listed):
                planted[plant.kind] += 1
                missed[plant.kind] += plant.value in new.text
    assert set(planted) == {"name", "email", "phone", "card", "iban", "ip"} and min(planted.values()) > 1
    assert missed.total() == 0
