"""The ticket folder, read back with readers that are not ours."""

from __future__ import annotations

import csv
import email
import email.policy
import errno
import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path

import pypdfium2
import pytest
from lxml import etree, html

from espalier.core.errors import StorageFull
from espalier.data.synth.tickets import wording
from espalier.data.synth.tickets.folder import TicketFolder, write_tickets
from espalier.data.synth.tickets.people import iban_check, luhn_digit
from espalier.data.synth.tickets.spec import CATALOGUE, HOUSE_XSD, RECORD_FIELDS, render_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TicketFolder:
    return write_tickets(tmp_path_factory.mktemp("tickets"), seed=11)


@pytest.fixture(scope="module")
def texts(folder: TicketFolder) -> dict[str, str]:
    """Every document as an independent reader sees it (a CSV: all its rows), white space flattened."""
    paths = [path for path in folder.documents.rglob("*") if path.is_file()]
    return {path.relative_to(folder.documents).as_posix(): " ".join(read(path).split()) for path in paths}


def read(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".pdf":
        with pypdfium2.PdfDocument(data) as pdf:
            return "\n".join(pdf[i].get_textpage().get_text_range() for i in range(len(pdf)))
    if path.suffix == ".docx":
        return read_docx(data)
    if path.suffix == ".html":
        return "\n".join(html.document_fromstring(data).itertext())
    if path.suffix == ".eml":
        mail = email.message_from_bytes(data, policy=email.policy.default)
        body = mail.get_body()
        assert body is not None
        unquoted = re.sub(r"^> ", "", str(body.get_content()), flags=re.MULTILINE)
        return f"{mail['From']} {mail['Subject']}\n{unquoted}"
    return data.decode("utf-8")


def read_docx(data: bytes) -> str:
    import kreuzberg

    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    return kreuzberg.extract_bytes_sync(data, kind).content


def digest(root: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_tickets(tmp_path / name, seed=seed, files=40)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    fixed = {"house.xsd"}
    shared = set(digest(tmp_path / "a").items()) & set(digest(tmp_path / "c").items())
    assert {name for name, _ in shared} == fixed


def test_there_are_so_many_files_of_six_kinds_and_about_a_thousand_tickets(folder: TicketFolder) -> None:
    kinds = Counter(path.suffix for path in folder.documents.rglob("*") if path.is_file())
    assert sum(kinds.values()) == folder.files == 300
    assert set(kinds) == {".pdf", ".docx", ".html", ".eml", ".md", ".csv"}
    assert kinds[".csv"] == 10
    assert min(kinds[suffix] for suffix in (".pdf", ".docx", ".html", ".eml", ".md")) >= 45
    assert 1000 <= len(folder.tickets) <= 1100


@pytest.mark.parametrize("files", [1, 6, 25])
def test_a_smaller_folder_has_at_least_one_file_of_each_kind(tmp_path: Path, files: int) -> None:
    made = write_tickets(tmp_path, seed=1, files=files)
    assert made.files == max(6, files)
    assert len({path.suffix for path in made.documents.rglob("*") if path.is_file()}) == 6


def test_every_record_is_valid_and_says_what_the_ticket_says(folder: TicketFolder) -> None:
    schema = etree.XMLSchema(etree.parse(folder.schema))
    rows = [json.loads(line) for line in folder.records.read_text().splitlines()]
    by_ref = {ticket.ref: ticket for ticket in folder.tickets}
    assert sorted(by_ref) == [row["ref"] for row in rows]
    for row in rows:
        tree = etree.fromstring(row["record"])
        schema.assertValid(tree)
        found = {name: tree.xpath(path, namespaces=tree.nsmap)[0] for name, path in RECORD_FIELDS.items()}
        assert found == {name: getattr(by_ref[row["ref"]], name) for name in RECORD_FIELDS}


GOOD = render_record(
    ref="LK-48213",
    product=CATALOGUE[0],
    opened="2025-03-04",
    closed="2025-03-11",
    cause="E40",
    severity="red",
    resolution="replaced the power supply",
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LK-48213", "LK-08213"),
        ("LK-48213", "48213"),
        (CATALOGUE[0], "Veridian Flow Meter"),
        ("2025-03-04", "2025-02-30"),
        ("2025-03-04", "4 March 2025"),
        ('cause="E40"', 'cause="E41"'),
        (' grade="red"', ""),
        ('grade="red"', 'grade="red" note="x"'),
        ("replaced the power supply", "Replaced the power supply."),
        ("<lk:unit>", "Here it is: <lk:unit>"),
        ("urn:larkspur:dossier:4", "urn:larkspur:dossier:3"),
        ("</lk:dossier>", "<lk:remedy>sent it back</lk:remedy></lk:dossier>"),
    ],
)
def test_the_schema_refuses_whatever_is_not_house_style(old: str, new: str) -> None:
    schema = etree.XMLSchema(etree.fromstring(HOUSE_XSD.encode()))
    assert schema.validate(etree.fromstring(GOOD))
    assert old in GOOD
    assert not schema.validate(etree.fromstring(GOOD.replace(old, new)))


def test_the_schema_refuses_fields_in_another_order() -> None:
    schema = etree.XMLSchema(etree.fromstring(HOUSE_XSD.encode()))
    lines = GOOD.split("\n")
    lines[1], lines[2] = lines[2], lines[1]
    assert not schema.validate(etree.fromstring("\n".join(lines)))


def test_every_document_holds_all_that_its_record_says(folder: TicketFolder, texts: dict[str, str]) -> None:
    by_ref = {ticket.ref: ticket for ticket in folder.tickets}
    told = set()
    for name, text in texts.items():
        refs = set(re.findall(r"\bLK-\d{5}\b", text))
        assert refs
        told |= refs
        if not name.startswith("csv/"):
            assert len(refs) == 1, f"{name} names another ticket"
        for ref in refs:
            ticket = by_ref[ref]
            for value in (ticket.product, ticket.opened, ticket.closed, ticket.resolution):
                assert value in text, f"{name} does not say {value}"
    assert told == set(by_ref)


def test_a_row_of_an_export_holds_one_whole_ticket(folder: TicketFolder) -> None:
    by_ref = {ticket.ref: ticket for ticket in folder.tickets}
    for path in sorted((folder.documents / "csv").iterdir()):
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        assert len(rows) == 74
        for row in rows:
            ticket = by_ref[row["ticket"]]
            assert (row["opened"], row["product"]) == (ticket.opened, ticket.product)
            assert ticket.closed in row["notes"]
            assert ticket.resolution in row["notes"]


def test_the_wording_decides_cause_and_grade_and_nothing_else_does(folder: TicketFolder) -> None:
    for ticket in folder.tickets:
        told = " ".join((*ticket.message, *ticket.notes))
        assert {code for code, ways in wording.SYMPTOMS.items() if any(way in told for way in ways)} == {ticket.cause}
        assert {code for code, ways in wording.FINDINGS.items() if any(way in told for way in ways)} <= {ticket.cause}
        assert {code for code, ways in wording.REMEDIES.items() if any(way in told for way in ways)} == {ticket.cause}
        assert {grade for grade, ways in wording.URGENCY.items() if any(way in told for way in ways)} == {
            ticket.severity
        }
        assert ticket.cause not in told
    assert len({ticket.cause for ticket in folder.tickets}) == 8
    assert len({ticket.severity for ticket in folder.tickets}) == 4


def test_what_was_planted_can_be_read_in_the_file(folder: TicketFolder, texts: dict[str, str]) -> None:
    assert set(folder.plants) == set(texts)
    missed = [(name, one) for name, plants in folder.plants.items() for one in plants if one.value not in texts[name]]
    assert missed == []
    assert {one.kind for plants in folder.plants.values() for one in plants} == {
        "name",
        "email",
        "phone",
        "card",
        "iban",
        "ip",
    }
    rows = [json.loads(line) for line in folder.plants_file.read_text().splitlines()]
    assert len(rows) == sum(map(len, folder.plants.values()))


def test_a_full_disk_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_bytes(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(StorageFull, match="no space left"):
        write_tickets(tmp_path, seed=1, files=6)


def test_the_list_of_plants_and_the_records_lie_outside_the_documents(folder: TicketFolder) -> None:
    for path in (folder.plants_file, folder.records, folder.schema, folder.contacts):
        assert path.is_file()
        assert folder.documents not in path.parents


def test_no_record_holds_personal_data(folder: TicketFolder) -> None:
    values = {one.value for plants in folder.plants.values() for one in plants}
    assert [value for value in values for ticket in folder.tickets if value in ticket.record] == []


def test_the_directory_knows_most_names_but_not_all(folder: TicketFolder) -> None:
    known = {row["name"] for row in csv.DictReader(io.StringIO(folder.contacts.read_text()))}
    planted = [one.value for plants in folder.plants.values() for one in plants if one.kind == "name"]
    share = sum(name in known for name in planted) / len(planted)
    assert 0.9 < share < 0.99, share


def test_one_file_in_twenty_is_a_duplicate(folder: TicketFolder, texts: dict[str, str]) -> None:
    refs = Counter(re.findall(r"LK-\d{5}", name)[0] for name in texts if not name.startswith("csv/"))
    assert sum(count - 1 for count in refs.values()) == 15
    copies = [name for name in texts if "(copy)" in name]
    assert len(copies) == 7
    for name in copies:
        original = folder.documents / name.replace(" (copy)", "")
        assert original.read_bytes() == (folder.documents / name).read_bytes()
    assert len([name for name in texts if name.startswith("eml/fwd-")]) == 8


def test_some_reports_have_two_pages(folder: TicketFolder) -> None:
    pages = Counter(len(pypdfium2.PdfDocument(path.read_bytes())) for path in (folder.documents / "pdf").iterdir())
    assert set(pages) == {1, 2}
    assert pages[2] >= 5


@pytest.mark.parametrize(("body", "check"), [("411111111111111", "1"), ("555555555555444", "4"), ("7992739871", "3")])
def test_card_numbers_end_in_the_published_check_digit(body: str, check: str) -> None:
    assert luhn_digit(body) == check


@pytest.mark.parametrize(
    ("country", "account", "check"),
    [("DE", "370400440532013000", "89"), ("BE", "539007547034", "68"), ("GB", "WEST12345698765432", "82")],
)
def test_account_numbers_have_the_published_check_digits(country: str, account: str, check: str) -> None:
    assert iban_check(country, account) == check


def test_planted_cards_and_accounts_pass_their_checks(folder: TicketFolder) -> None:
    plants = {one for file in folder.plants.values() for one in file}
    for card in (re.sub(r"\D", "", one.value) for one in plants if one.kind == "card"):
        digits = [int(char) for char in card]
        doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
        assert (sum(digits[-1::-2]) + doubled) % 10 == 0
    for iban in (one.value.replace(" ", "") for one in plants if one.kind == "iban"):
        assert int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1
