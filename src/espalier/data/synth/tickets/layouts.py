"""A ticket as people keep it: PDF, DOCX, HTML, mail, Markdown, or a row of an export.

Each layout gives the file's bytes and the personal data it prints around the telling. Around the ticket stand the
things a cleaning step must take away: navigation, footers, signatures, legal notices, quoted mails.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape

from espalier.data.synth.draw import Draw
from espalier.data.synth.tickets.docx import Table, Text, write_docx
from espalier.data.synth.tickets.pdf import CHARS_ON_LINE, LINES_ON_PAGE, write_pdf
from espalier.data.synth.tickets.people import Person
from espalier.data.synth.tickets.spec import COMPANY
from espalier.data.synth.tickets.story import Plant, Ticket

Layout = Callable[[Draw, Ticket], "Sheet"]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file, ready to write, and every piece of personal data that can be read in it."""

    data: bytes
    plants: tuple[Plant, ...]


def lay_out_pdf(draw: Draw, ticket: Ticket) -> Sheet:
    """A service report with a form on top; the longer ones run onto a second page."""
    facts, printed = _facts(draw, ticket)
    body = [f"{COMPANY} - Service report", ""]
    body += [f"{label}: {value}" for label, value in facts]
    body += ["", "Message of the customer", *_fill(" ".join((ticket.greeting, *ticket.message)))]
    body += ["", "Notes of the service desk", *_fill(" ".join(ticket.notes))]
    pages = [body]
    if draw.chance(0.25):
        # A form with much space for signatures pushes the notes to the next page.
        at = body.index("Notes of the service desk")
        pages = [body[:at], body[at:]]
    footed = [
        [*page[: LINES_ON_PAGE - 4], "", PDF_FOOTER, f"Page {i} of {len(pages)}"] for i, page in enumerate(pages, 1)
    ]
    return Sheet(write_pdf(footed), (*ticket.plants, *printed))


def lay_out_docx(draw: Draw, ticket: Ticket) -> Sheet:
    """A form in Word: a table of facts, two sections, a signature."""
    facts, printed = _facts(draw, ticket)
    blocks: list[Text | Table] = [
        Text(f"Service case {ticket.ref}", "Heading1"),
        Table(tuple(facts)),
        Text("Message", "Heading2"),
        Text(" ".join((ticket.greeting, *ticket.message))),
        Text("Notes", "Heading2"),
        Text(" ".join(ticket.notes)),
        Text(DOCX_NOTICE),
    ]
    return Sheet(write_docx(blocks, f"{COMPANY} | internal"), (*ticket.plants, *printed))


def lay_out_html(draw: Draw, ticket: Ticket) -> Sheet:
    """A page of the old ticket system, saved from the browser with all its trimmings."""
    facts, printed = _facts(draw, ticket)
    rows = "\n".join([f"<tr><th>{label}</th><td>{escape(value)}</td></tr>" for label, value in facts])
    page = _HTML.format(
        company=COMPANY,
        ref=ticket.ref,
        rows=rows,
        message=escape(" ".join((ticket.greeting, *ticket.message)), quote=False),
        notes=escape(" ".join(ticket.notes), quote=False),
        year=ticket.closed[:4],
    )
    return Sheet(page.encode("utf-8"), (*ticket.plants, *printed))


def lay_out_mail(draw: Draw, ticket: Ticket) -> Sheet:
    """The closing mail to the file, with the customer's first mail quoted under the signature."""
    lines = [*_tell(ticket), "", *_signature(ticket.agent)]
    lines += ["", f"On {ticket.opened}, {ticket.customer.name} <{ticket.customer.email}> wrote:"]
    lines += [f"> {line}" for line in _wrap(" ".join(ticket.message))]
    message = _mail(ticket, ticket.agent, f"[{ticket.ref}] {ticket.product}: closed", lines)
    quoted = (Plant("name", ticket.customer.name), Plant("email", ticket.customer.email))
    return Sheet(message, (*ticket.plants, *_signed(ticket.agent), *quoted))


def lay_out_forward(ticket: Ticket, forwarder: Person) -> Sheet:
    """The same mail, passed on by a colleague with a line on top: a near duplicate."""
    lines = ["---------- Forwarded message ----------", f"From: {ticket.agent.name} <{ticket.agent.email}>", ""]
    lines += [*_tell(ticket), "", *_signature(ticket.agent)]
    message = _mail(ticket, forwarder, f"Fwd: [{ticket.ref}] {ticket.product}: closed", lines)
    return Sheet(message, (*ticket.plants, *_signed(ticket.agent)))


def lay_out_markdown(draw: Draw, ticket: Ticket) -> Sheet:
    """A note in the team's wiki."""
    facts, printed = _facts(draw, ticket)
    bullets = "\n".join([f"- {label}: {value}" for label, value in facts])
    message = " ".join((ticket.greeting, *ticket.message))
    sections = f"## Message\n\n{message}\n\n## Notes\n\n{' '.join(ticket.notes)}"
    text = f"# Ticket {ticket.ref}\n\n{bullets}\n\n{sections}\n\n{WIKI_NOTICE}\n"
    return Sheet(text.encode("utf-8"), (*ticket.plants, *printed))


CSV_COLUMNS = ("ticket", "opened", "customer", "email", "phone", "product", "message", "notes")


def lay_out_row(ticket: Ticket) -> tuple[tuple[str, ...], tuple[Plant, ...]]:
    """A row of the export, in the order of `CSV_COLUMNS`, and the personal data in it."""
    customer = ticket.customer
    message = " ".join((ticket.greeting, *ticket.message))
    row = (
        ticket.ref,
        ticket.opened,
        customer.name,
        customer.email,
        customer.phone,
        ticket.product,
        message,
        " ".join(ticket.notes),
    )
    printed = (Plant("name", customer.name), Plant("email", customer.email), Plant("phone", customer.phone))
    return row, (*ticket.plants, *printed)


def _facts(draw: Draw, ticket: Ticket) -> tuple[list[tuple[str, str]], list[Plant]]:
    """The form on top: number, day and customer always, the product and how to reach the customer often."""
    customer = ticket.customer
    facts = [("Ticket", ticket.ref), ("Opened", ticket.opened), ("Customer", f"{customer.name}, {customer.firm}")]
    plants = [Plant("name", customer.name)]
    if draw.chance(0.7):
        facts.append(("Product", ticket.product))
    if draw.chance(0.6):
        facts.append(("Mail", customer.email))
        plants.append(Plant("email", customer.email))
    if draw.chance(0.5):
        facts.append(("Phone", customer.phone))
        plants.append(Plant("phone", customer.phone))
    return facts, plants


def _mail(ticket: Ticket, sender: Person, subject: str, lines: list[str]) -> bytes:
    message = EmailMessage()
    message["From"] = f"{sender.name} <{sender.email}>"
    message["To"] = "Service file <file@larkspur.example>"
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.fromisoformat(ticket.closed).replace(hour=16, tzinfo=UTC))
    message["Message-ID"] = f"<{ticket.ref.lower()}.{len(subject)}@larkspur.example>"
    message.set_content("\n".join(lines) + "\n", cte="quoted-printable")
    return message.as_bytes(policy=SMTP)


def _tell(ticket: Ticket) -> list[str]:
    """The ticket in prose, wrapped as mail programs wrap."""
    telling = f'{ticket.opening} The customer wrote: "{ticket.greeting} {" ".join(ticket.message)}"'
    return [*_wrap(telling), "", *_wrap(" ".join(ticket.notes))]


def _signed(agent: Person) -> tuple[Plant, ...]:
    return Plant("name", agent.name), Plant("email", agent.email), Plant("phone", agent.phone)


def _signature(agent: Person) -> list[str]:
    return [
        "Kind regards,",
        agent.name,
        f"{COMPANY} | Service desk",
        f"{agent.phone} | {agent.email}",
        *_wrap(MAIL_NOTICE),
    ]


def _fill(text: str) -> list[str]:
    return textwrap.wrap(text, CHARS_ON_LINE, break_long_words=False, break_on_hyphens=False)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 76, break_long_words=False, break_on_hyphens=False)


PDF_FOOTER = f"{COMPANY} - 4 Mill Lane - registered in Cambria, no. 221904 - page not controlled"
DOCX_NOTICE = "This form is for internal use. Keep it for six years. Do not send it to third parties."
MAIL_NOTICE = "This message may be confidential. If you are not the person it was meant for, please delete it."
WIKI_NOTICE = "---\nKept by the service team. See the wiki for the rules of filing."
_HTML = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{ref} - {company} Service</title><script>var page = "{ref}";</script></head>
<body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/tickets">Tickets</a></li><li><a href="/stock">Stock</a></li>\
<li><a href="/people">People</a></li><li><a href="/logout">Log out</a></li></ul></nav>
<aside><h3>Filters</h3><p>Mine | Open | Closed | All</p></aside>
<main><article>
<h1>Ticket {ref}</h1>
<table>
{rows}
</table>
<h2>Message</h2>
<p>{message}</p>
<h2>Notes</h2>
<p>{notes}</p>
</article></main>
<footer><p>&copy; {year} {company}. All rights reserved. Imprint | Privacy | Terms of use</p></footer>
</body>
</html>
"""
