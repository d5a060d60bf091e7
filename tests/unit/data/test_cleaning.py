from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.types import Document
from espalier.data.clean.boilerplate import BoilerplateSpec, prepare
from espalier.data.clean.normalise import NormaliseSpec, normalise_text
from espalier.data.clean.replies import cut_quotes, cut_signature
from espalier.data.clean.wrap import UnwrapSpec, unwrap_text
from espalier.data.flow.batch import to_batch
from espalier.data.flow.outcome import apply_outcome
from espalier.data.flow.spread import run_here

MakeDocument = Callable[..., Document]


# Normalising


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    for spec in (NormaliseSpec(), NormaliseSpec(form="NFKC"), NormaliseSpec(plain_quotes=False)):
        once = normalise_text(text, spec)
        assert normalise_text(once, spec) == once


def test_spaces_line_ends_and_invisible_characters_get_one_form() -> None:
    text = "\ufeffa\u00a0 b\t\tc\u200b \r\n\r\n\r\n\r\nd\u2028e\x00"
    assert normalise_text(text, NormaliseSpec()) == "a b c\n\nd\ne"


def test_nothing_blank_stands_around_a_text() -> None:
    assert normalise_text(" \n\t a b\n \n", NormaliseSpec()) == "a b"


def test_indentation_is_kept() -> None:
    assert normalise_text("a:\n    b  c \n\td", NormaliseSpec()) == "a:\n    b c\n\td"


def test_composed_and_decomposed_letters_become_the_same() -> None:
    assert normalise_text("u\u0308ber", NormaliseSpec()) == normalise_text("über", NormaliseSpec()) == "über"


def test_a_page_break_outlives_normalising() -> None:
    assert normalise_text("one\n\f\ntwo", NormaliseSpec()) == "one\n\f\ntwo"


# Mails

_ANSWER = "Subject: Pump\n\nPlease replace it."


@pytest.mark.parametrize(
    "quote",
    [
        "On Mon, 5 May 2025 at 10:00, Ann Bell <a@b.example> wrote:\n> It broke.\n> Yesterday.",
        "On Mon, 5 May 2025 at 10:00, a person with a very long name\n<a@b.example> wrote:\n> It broke.",
        "-----Original Message-----\nFrom: Ann\nSent: Monday\nIt broke.",
        "From: Ann Bell <a@b.example>\nSent: Monday\nTo: desk\n\nIt broke.",
        "Am 05.05.2025 um 10:00 schrieb Ann Bell:\n> Es ist kaputt.",
        "> It broke.",
    ],
)
def test_a_quoted_mail_under_the_answer_is_cut(quote: str) -> None:
    assert cut_quotes(f"{_ANSWER}\n\n{quote}") == _ANSWER


def test_a_plain_forward_keeps_the_forwarded_message_without_its_headers() -> None:
    forward = (
        "Subject: Fwd: Pump\n\n---------- Forwarded message ----------\nFrom: Ann\nSubject: Pump\n\nIt broke.\nBadly."
    )
    assert cut_quotes(forward) == "Subject: Fwd: Pump\n\nIt broke.\nBadly."


def test_a_mail_of_quotes_alone_is_left_as_it_is() -> None:
    assert cut_quotes("> only\n> this") == "> only\n> this"


@pytest.mark.parametrize(
    "signature",
    [
        "-- \nAnn Bell\nExample Ltd",
        "Kind regards,\nAnn Bell\n+44 20 1234567",
        "Best regards\nAnn",
        "Sent from my phone",
    ],
)
def test_a_signature_is_cut(signature: str) -> None:
    assert cut_signature(f"{_ANSWER}\n\n{signature}", 8) == _ANSWER


def test_a_closing_far_from_the_end_is_no_signature() -> None:
    text = "Kind regards,\n" + "\n".join(f"line {n}" for n in range(20))
    assert cut_signature(text, 8) == text


# Boilerplate


def peel(documents: list[Document], spec: BoilerplateSpec) -> tuple[list[str], dict[str, int]]:
    """The documents' texts without boilerplate, and the step's counts."""
    batch, step = to_batch(documents), prepare(spec, Path())
    [decision] = step.decide([step.sketch(batch)], [batch], Path(), run_here)
    outcome = step.apply_decision(batch, decision)
    return apply_outcome(batch, outcome).column("text").to_pylist(), outcome.counts


_FOOTER = "This message may be confidential, please delete it."


def page(number: int, *lines: str) -> str:
    return "\n".join((f"What happened in case {number} is told here.", *lines))


def test_a_footer_of_many_documents_is_peeled_and_counted(document: MakeDocument) -> None:
    documents = [document(page(n, _FOOTER), n) for n in range(10)]
    texts, counts = peel(documents, BoilerplateSpec())
    assert texts == [page(n) for n in range(10)]
    assert counts == {"lines": 1, "changed": 10}


def test_a_footer_under_a_page_number_is_found_on_every_page(document: MakeDocument) -> None:
    documents = [
        document(f"{page(n, _FOOTER, 'Page 1 of 2')}\n\f\n{page(-n, _FOOTER, 'Page 2 of 2')}", n) for n in range(9)
    ]
    texts, _ = peel(documents, BoilerplateSpec())
    assert texts == [f"{page(n)}\n{page(-n)}" for n in range(9)]


def test_a_line_that_many_documents_hold_inside_is_content_even_where_it_ends_one(document: MakeDocument) -> None:
    said = "We need a solution very soon."
    documents = [document(page(n, said, f"And then {n} more."), n) for n in range(12)]
    documents += [document(page(n, said), n) for n in range(12, 20)]
    assert peel(documents, BoilerplateSpec())[1]["lines"] == 0


def test_a_value_that_many_documents_share_is_content(document: MakeDocument) -> None:
    documents = [document(page(n, "Severity: amber, as agreed"), n) for n in range(20)]
    assert peel(documents, BoilerplateSpec())[1] == {"lines": 0, "changed": 0}


def test_what_few_documents_share_is_content(document: MakeDocument) -> None:
    documents = [document(page(n, _FOOTER), n) for n in range(5)]
    assert peel(documents, BoilerplateSpec())[1] == {"lines": 0, "changed": 0}


def test_boilerplate_is_counted_by_format(document: MakeDocument) -> None:
    documents = [document(page(n, _FOOTER), n, format="eml" if n % 2 else "pdf") for n in range(14)]
    assert peel(documents, BoilerplateSpec())[1]["lines"] == 0  # seven of each


def test_a_document_of_boilerplate_alone_keeps_its_text(document: MakeDocument) -> None:
    documents = [document(_FOOTER, n) for n in range(10)]
    assert peel(documents, BoilerplateSpec())[0] == [_FOOTER] * 10


# Line wrapping


def test_wrapped_lines_are_joined_and_headings_lists_and_fields_are_not() -> None:
    text = (
        "The pump has been making a grinding noise since the day before\n"
        "yesterday and nobody here knows how to stop it from doing so.\n"
        "What we tried\n"
        "- we switched it off and on again, which helped for one whole hour\n"
        "- we called the desk\n"
        "Product: pump"
    )
    assert unwrap_text(text, UnwrapSpec()).split("\n") == [
        "The pump has been making a grinding noise since the day before yesterday and nobody here knows how to "
        "stop it from doing so.",
        "What we tried",
        "- we switched it off and on again, which helped for one whole hour",
        "- we called the desk",
        "Product: pump",
    ]


def test_a_soft_hyphen_is_undone_and_a_real_one_kept() -> None:
    soft = "the technician who had come on Monday ordered a replace\u00ad\nment part for it"
    hard = "the technician who had come on Monday wrote a long follow-\nup report on it"
    assert "replacement part" in unwrap_text(soft, UnwrapSpec())
    assert "follow-up report" in unwrap_text(hard, UnwrapSpec())


def test_short_lines_are_not_taken_for_wrapped_ones() -> None:
    assert unwrap_text("one\ntwo\nthree", UnwrapSpec()) == "one\ntwo\nthree"
