"""Recognisers that are plug-ins, and Presidio as one of them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from espalier.core.errors import InvalidInput, MissingExtra
from espalier.data.pii.detect import Detector
from espalier.data.pii.finding import Finding
from espalier.data.pii.presidio import Presidio, _best_installed, load_presidio
from espalier.data.pii.redact import Redactor
from espalier.data.pii.spec import RedactSpec


@dataclass
class Result:
    """What `AnalyzerEngine.analyze` returns a list of (presidio_analyzer.RecognizerResult)."""

    entity_type: str
    start: int
    end: int
    score: float


class Analyzer:
    """Answers as the documented contract of `AnalyzerEngine.analyze` has it, and refuses whatever is not in it."""

    def __init__(self, found: dict[str, str], language: str = "en") -> None:
        self.found, self.language = found, language

    def analyze(
        self, text: str, language: str, entities: list[str] | None = None, score_threshold: float | None = None
    ) -> list[Result]:
        if language != self.language:
            raise ValueError(f"No matching recognizers were found to serve the request in {language}.")
        assert text and entities and score_threshold is not None and 0 < score_threshold < 1
        assert set(entities) <= {"PERSON", "LOCATION", "NRP", "ORGANIZATION", "DATE_TIME"}
        results = []
        for value, entity in self.found.items():
            start = text.find(value)
            if start >= 0 and entity in entities:
                results.append(Result(entity, start, start + len(value), 0.85))
        return results


class Words:
    """Finds given words, as a user's own recogniser would."""

    def __init__(self, kind: str, words: Sequence[str]) -> None:
        self.kind, self.words = kind, words

    def find(self, text: str) -> Iterator[Finding]:
        for word in self.words:
            start = text.find(word)
            if start >= 0:
                yield Finding(start, start + len(word), self.kind, "words")


def test_persons_and_places_of_presidio_are_redacted_with_what_the_rules_find() -> None:
    found = {"Jörg Müller": "PERSON", "Gelsenkirchen": "LOCATION", "mail": "NRP"}
    redactor = Redactor(RedactSpec(), recognizers=[Presidio(Analyzer(found).analyze, "en")])
    text = "Grüße, Jörg Müller in Gelsenkirchen (mail jm@example.org)"
    assert redactor.redact(text) == "Grüße, [NAME] in [ADDRESS] (mail [EMAIL])"
    assert redactor.redact(redactor.redact(text)) == redactor.redact(text)


def test_presidio_is_not_asked_about_nothing_and_its_refusals_are_seen() -> None:
    assert list(Presidio(Analyzer({}, "de").analyze, "en").find("  \n")) == []
    with pytest.raises(ValueError, match="in en"):
        list(Presidio(Analyzer({}, "de").analyze, "en").find("text"))


def test_where_findings_overlap_the_rules_win_then_the_first_recogniser() -> None:
    first, second = Words("NAME", ["ann@bell", "Ann Bell"]), Words("ADDRESS", ["Bell Street", "Ann"])
    detector = Detector(["EMAIL"], [first, second])
    text = "Ann Bell, Bell Street: ann@bell.example"
    ((_, findings),) = detector.find(pa.array([text], pa.large_string()))
    assert [(text[each.start : each.end], each.kind) for each in findings] == [
        ("Ann Bell", "NAME"),
        ("Bell Street", "ADDRESS"),
        ("ann@bell.example", "EMAIL"),
    ]


def test_a_recognisers_kind_has_a_mode_like_any_other() -> None:
    spec = RedactSpec.model_validate({"modes": {"ADDRESS": "keep"}})
    redactor = Redactor(spec, recognizers=[Words("ADDRESS", ["Oak Street"]), Words("NAME", ["Ann"])])
    assert redactor.redact("Ann, Oak Street") == "[NAME], Oak Street"


def test_the_best_installed_model_of_a_language_is_taken() -> None:
    installed = ["en_core_web_sm", "de_core_news_md", "en_core_web_lg", "xx_ent_wiki_sm"]
    assert _best_installed("en", installed) == "en_core_web_lg"
    assert _best_installed("de", installed) == "de_core_news_md" and _best_installed("fr", installed) == ""


def test_presidio_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtra) as refusal:
        load_presidio("")
    assert "espalier[presidio]" in refusal.value.hint
    with pytest.raises(InvalidInput, match="no language"):
        load_presidio("English")


@pytest.mark.skipif(importlib.util.find_spec("presidio_analyzer") is None, reason="the extra is not installed")
def test_the_real_presidio_finds_names_with_a_model_from_a_folder(tmp_path: Path) -> None:
    import spacy

    model = spacy.blank("en")
    ruler = model.add_pipe("entity_ruler")
    patterns = [{"label": "PERSON", "pattern": "Ann Bell"}, {"label": "GPE", "pattern": "Leeds"}]
    ruler.add_patterns(patterns)  # type: ignore[attr-defined]
    model.to_disk(tmp_path / "model")
    presidio = load_presidio(f"en={tmp_path / 'model'}")
    redactor = Redactor(RedactSpec(), recognizers=[presidio])
    assert redactor.redact("Ann Bell of Leeds, a@b.example") == "[NAME] of [ADDRESS], [EMAIL]"
    with pytest.raises(MissingExtra, match="no spaCy model"):
        load_presidio("fr")
