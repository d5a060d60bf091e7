"""Names and places through Microsoft Presidio and a spaCy model, as the plug-in `presidio`.

    steps:
      - {step: redact, recognizers: [presidio]}                   # the largest English model that is installed
      - {step: redact, recognizers: ["presidio:de=de_core_news_md"]}

Only entities that no rule of ours finds are asked for. The model must be installed: Presidio would fetch one from the
network, and nothing here does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput, MissingExtra
from espalier.data.pii.finding import Finding

KINDS = {"PERSON": "NAME", "LOCATION": "ADDRESS"}
MIN_SCORE = 0.5
_SIZES = ("trf", "lg", "md", "sm")  # the best first


class Presidio:
    """A Presidio analyser as a recogniser. `analyze` is `AnalyzerEngine.analyze` or does what it does."""

    def __init__(self, analyze: Callable[..., Iterable[Any]], language: str) -> None:
        self._analyze = analyze
        self._language = language

    def find(self, text: str) -> Iterator[Finding]:
        """Persons as NAME and places as ADDRESS; positions are characters."""
        if not text.strip():
            return
        results = self._analyze(text=text, language=self._language, entities=sorted(KINDS), score_threshold=MIN_SCORE)
        for result in sorted(results, key=lambda result: (-result.score, result.start, result.end)):
            yield Finding(result.start, result.end, KINDS[result.entity_type], f"presidio.{result.entity_type.lower()}")


def load_presidio(argument: str) -> Presidio:
    """The recogniser for "", "LANGUAGE" or "LANGUAGE=MODEL" (a spaCy package or folder); English by default.

    Raises MissingExtra without Presidio or the model, InvalidInput for an argument that is neither.
    """
    language, _, model = (argument or "en").partition("=")
    if not (len(language) == 2 and language.isalpha() and language.islower()):
        raise InvalidInput(f"`{language}` is no language", where="redact.recognizers", hint="write `presidio:de=MODEL`")
    try:
        import spacy.util
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"presidio needs the package {error.name}", hint="pip install 'espalier[presidio]'"
        ) from error
    model = model or _best_installed(language, spacy.util.get_installed_models())
    if not model or not (spacy.util.is_package(model) or (Path(model) / "meta.json").is_file()):
        raise MissingExtra(f"no spaCy model {model or language!r}", hint=_install(model or f"{language}_core_news_lg"))
    engine = SpacyNlpEngine(models=[{"lang_code": language, "model_name": model}])
    engine.load()
    recognizer = SpacyRecognizer(supported_language=language, supported_entities=sorted(KINDS))
    registry = RecognizerRegistry(recognizers=[recognizer], supported_languages=[language])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[language])
    return Presidio(analyzer.analyze, language)


def _best_installed(language: str, installed: Iterable[str]) -> str:
    """The largest installed model of a language, or "" when there is none."""
    own = [model for model in sorted(installed) if model.startswith(f"{language}_")]
    return next((model for size in _SIZES for model in own if model.endswith(f"_{size}")), own[0] if own else "")


def _install(model: str) -> str:
    model = model.replace("en_core_news", "en_core_web")
    return f"python -m spacy download {model}, where there is a network; or `presidio:LANGUAGE=FOLDER`"
