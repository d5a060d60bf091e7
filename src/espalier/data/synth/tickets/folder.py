"""The folder itself: about 300 files, a thousand tickets, the back office's export, and a list of what was planted.

Layout below the root: `tickets/` holds what people keep; `backoffice/` the records, the schema and the directory of
names; `plants.jsonl` says where which personal data stands, and is for measuring only.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

from espalier.data.synth.draw import Draw
from espalier.data.synth.tickets import layouts
from espalier.data.synth.tickets.layouts import CSV_COLUMNS, Layout, Sheet
from espalier.data.synth.tickets.people import Person, make_customers, make_staff
from espalier.data.synth.tickets.spec import HOUSE_XSD
from espalier.data.synth.tickets.story import Plant, Ticket, tell_ticket
from espalier.store.disk import storage_errors

# Parts of 300; CSV exports hold many tickets each, so ten of them are two thirds of all tickets.
_SHARES = {"pdf": 65, "docx": 60, "html": 50, "eml": 60, "md": 55, "csv": 10}
_LAYOUTS: dict[str, Layout] = {
    "pdf": layouts.lay_out_pdf,
    "docx": layouts.lay_out_docx,
    "html": layouts.lay_out_html,
    "eml": layouts.lay_out_mail,
    "md": layouts.lay_out_markdown,
}
_ROWS_IN_EXPORT = 74
_DUPLICATES = 0.05  # of the files: half of them copies to the byte, half forwarded mails
_CUSTOMERS, _STAFF = 140, 12


@dataclass(frozen=True, slots=True)
class TicketFolder:
    """Where everything lies, and what is in it. `plants` maps a file's name below `documents` to what stands in it."""

    documents: Path
    records: Path  # JSON lines {"ref", "record"}
    schema: Path  # XSD
    contacts: Path  # CSV: name, kind
    plants_file: Path  # JSON lines {"file", "kind", "value"}
    plants: dict[str, tuple[Plant, ...]]
    tickets: tuple[Ticket, ...]
    files: int


def write_tickets(folder: Path, *, seed: int, files: int = 300) -> TicketFolder:
    """Write `files` documents (at least one of each kind) and the back office's export below `folder`.

    The same seed gives the same bytes. Files already there are overwritten; nothing is deleted. Raises StorageFull,
    PermissionDenied.
    """
    draw = Draw(f"tickets {seed}")
    customers, staff = make_customers(draw, _CUSTOMERS), make_staff(draw, _STAFF)
    desk = _Desk(draw, customers, staff)
    sheets = _make_sheets(desk, files)
    paths = {name: folder / "tickets" / name for name in sheets}
    for name, sheet in sheets.items():
        _write(paths[name], sheet.data)
    office = folder / "backoffice"
    by_ref = sorted(desk.tickets, key=lambda ticket: ticket.ref)
    _write(office / "records.jsonl", _lines([{"ref": ticket.ref, "record": ticket.record} for ticket in by_ref]))
    _write(office / "house.xsd", HOUSE_XSD.encode("utf-8"))
    _write(office / "contacts.csv", _list_contacts(customers, staff))
    plants = {name: tuple(dict.fromkeys(sheet.plants)) for name, sheet in sheets.items()}
    rows = [{"file": name, "kind": one.kind, "value": one.value} for name in sorted(plants) for one in plants[name]]
    _write(folder / "plants.jsonl", _lines(rows))
    return TicketFolder(
        documents=folder / "tickets",
        records=office / "records.jsonl",
        schema=office / "house.xsd",
        contacts=office / "contacts.csv",
        plants_file=folder / "plants.jsonl",
        plants=plants,
        tickets=tuple(by_ref),
        files=len(sheets),
    )


class _Desk:
    """Hands out tickets with numbers never used before, and remembers them."""

    def __init__(self, draw: Draw, customers: list[Person], staff: list[Person]) -> None:
        self.draw = draw
        self.staff = staff
        self.tickets: list[Ticket] = []
        self._customers = customers
        self._numbers = draw.shuffled(range(10_000, 100_000))

    def next_ticket(self) -> Ticket:
        ticket = tell_ticket(self.draw, f"LK-{self._numbers.pop()}", self._customers, self.staff)
        self.tickets.append(ticket)
        return ticket


def _make_sheets(desk: _Desk, files: int) -> dict[str, Sheet]:
    """File name -> sheet, so many as asked for, the duplicates among them."""
    draw = desk.draw
    copies = round(files * _DUPLICATES)
    counts = {kind: max(1, round(files * share / 300)) for kind, share in _SHARES.items()}
    counts["md"] = max(1, counts["md"] + files - sum(counts.values()))
    originals: dict[str, list[tuple[str, Ticket, Sheet]]] = {kind: [] for kind in _LAYOUTS}
    for kind, layout in _LAYOUTS.items():
        for _ in range(counts[kind] - _copies_of(kind, copies)):
            ticket = desk.next_ticket()
            originals[kind].append((f"{kind}/{ticket.ref}.{kind}", ticket, layout(draw, ticket)))
    everything = [one for group in originals.values() for one in group]
    sheets = {name: sheet for name, _, sheet in everything}
    for _, ticket, _ in draw.sample(originals["eml"], _copies_of("eml", copies)):
        sheets[f"eml/fwd-{ticket.ref}.eml"] = layouts.lay_out_forward(ticket, draw.pick(desk.staff))
    for name, _, sheet in draw.sample(everything, _copies_of("md", copies)):
        stem, suffix = name.rsplit(".", 1)
        sheets[f"{stem} (copy).{suffix}"] = sheet
    for number in range(1, counts["csv"] + 1):
        sheets[f"csv/export-{number:02d}.csv"] = _make_export(desk)
    return dict(sorted(sheets.items()))


def _copies_of(kind: str, copies: int) -> int:
    """How many files of a kind are left out so that duplicates fit in: mails for forwards, notes for plain copies."""
    return {"eml": (copies + 1) // 2, "md": copies // 2}.get(kind, 0)


def _make_export(desk: _Desk) -> Sheet:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    plants: list[Plant] = []
    for _ in range(_ROWS_IN_EXPORT):
        row, printed = layouts.lay_out_row(desk.next_ticket())
        writer.writerow(row)
        plants += printed
    return Sheet(stream.getvalue().encode("utf-8"), tuple(plants))


def _list_contacts(customers: list[Person], staff: list[Person]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("name", "kind"))
    writer.writerows(sorted([(one.name, "customer") for one in customers] + [(one.name, "staff") for one in staff]))
    return stream.getvalue().encode("utf-8")


def _lines(rows: list[dict[str, str]]) -> bytes:
    return "".join([json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows]).encode("utf-8")


def _write(path: Path, data: bytes) -> None:
    # Not fsynced one by one: what is lost in a power cut is made again from the seed.
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
