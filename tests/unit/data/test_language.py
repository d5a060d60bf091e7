"""Languages: right ones, py3langid's own answers, and drops that say which."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from espalier.core.types import Document, Span
from espalier.data.clean.language import LanguageSpec, identify, prepare
from espalier.data.flow.batch import to_batch
from espalier.data.flow.outcome import Outcome

# One sentence about a harbour, in 25 languages.
SENTENCES = {
    "en": "This is a text about the harbour and the boats that lay there in the morning.",
    "de": "Dies ist ein Text über den Hafen und die Boote, die dort am Morgen lagen.",
    "fr": "Ceci est un texte sur le port et les bateaux qui étaient là le matin.",
    "es": "Este es un texto sobre el puerto y los barcos que estaban allí por la mañana.",
    "it": "Questo è un testo sul porto e sulle barche che erano lì al mattino.",
    "pt": "Este é um texto sobre o porto e os barcos que estavam lá de manhã.",
    "nl": "Dit is een tekst over de haven en de boten die daar in de ochtend lagen.",
    "sv": "Detta är en text om hamnen och båtarna som låg där på morgonen.",
    "da": "Dette er en tekst om havnen og bådene, der lå der om morgenen.",
    "fi": "Tämä on teksti satamasta ja veneistä, jotka olivat siellä aamulla.",
    "pl": "To jest tekst o porcie i łodziach, które stały tam rano.",
    "cs": "Toto je text o přístavu a lodích, které tam ráno ležely.",
    "ru": "Это текст о гавани и лодках, которые стояли там утром.",
    "uk": "Це текст про гавань і човни, які стояли там уранці.",
    "el": "Αυτό είναι ένα κείμενο για το λιμάνι και τις βάρκες.",
    "tr": "Bu, sabahleyin orada duran limanla ve teknelerle ilgili bir metindir.",
    "hu": "Ez egy szöveg a kikötőről és a hajókról, amelyek reggel ott álltak.",
    "ja": "これは朝そこにあった港とボートについての文章です。",
    "zh": "这是一篇关于港口和早晨停在那里的船只的文字。",
    "ko": "이것은 아침에 그곳에 있던 항구와 배들에 관한 글입니다.",
    "ar": "هذا نص عن الميناء والقوارب التي كانت هناك في الصباح.",
    "he": "זהו טקסט על הנמל והסירות שעגנו שם בבוקר.",
    "hi": "यह बंदरगाह और उन नावों के बारे में एक पाठ है जो सुबह वहाँ थीं।",
    "th": "นี่คือข้อความเกี่ยวกับท่าเรือและเรือที่จอดอยู่ที่นั่นในตอนเช้า",
    "vi": "Đây là một văn bản về bến cảng và những chiếc thuyền nằm ở đó vào buổi sáng.",
}


@pytest.fixture(scope="module")
def reference() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def run(spec: LanguageSpec, *texts: str) -> Outcome:
    return prepare(spec, Path()).apply(
        to_batch([Document(f"d{n}", t, Span("0" * 64, "u")) for n, t in enumerate(texts)])
    )


def test_one_sentence_is_enough_for_twenty_five_languages() -> None:
    outcome = run(LanguageSpec(), *SENTENCES.values())
    assert outcome.tags["language"].to_pylist() == list(SENTENCES)
    assert outcome.counts == dict.fromkeys(sorted(SENTENCES), 1) and outcome.reasons is None


@given(st.lists(st.text(max_size=60) | st.sampled_from(list(SENTENCES.values())), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_answers_are_those_of_the_library(reference: LanguageIdentifier, texts: list[str]) -> None:
    names, shares = identify(pa.array(texts, pa.large_string()), 10_000)
    for text, name, share in zip(texts, names, shares.tolist(), strict=True):
        ranked = dict(reference.rank(text))
        assert share == pytest.approx(max(ranked.values()), abs=2e-3)
        assert ranked[name] == pytest.approx(max(ranked.values()), abs=2e-3)


def test_only_the_start_is_looked_at_and_a_character_is_never_cut() -> None:
    text = SENTENCES["ru"] + SENTENCES["en"] * 40
    assert run(LanguageSpec(sample_bytes=65), text).tags["language"].to_pylist() == ["ru"]
    assert run(LanguageSpec(sample_bytes=4096), text).tags["language"].to_pylist() == ["en"]


def test_other_languages_are_dropped_with_their_name_and_probability() -> None:
    outcome = run(LanguageSpec(keep=("en", "fr")), SENTENCES["en"], SENTENCES["de"], "")
    assert outcome.reasons.to_pylist() == [
        None,
        "language de: probability 1.00, kept are en, fr",
        "language und: probability 0.01, kept are en, fr",
    ]
    assert run(LanguageSpec(keep=("en", "und")), "", "12 34").reasons is None


def test_shouting_is_read_as_speech() -> None:
    assert run(LanguageSpec(), SENTENCES["de"].upper()).tags["language"].to_pylist() == ["de"]


def test_no_documents_have_no_language() -> None:
    assert run(LanguageSpec()).tags["language"].to_pylist() == []
