"""How well and how fast personal data is found: recall and precision by kind on labelled sentences, MB/s on plain text.

    python benchmarks/personal_data.py [--text FOLDER] [--mb 30]

The labelled sentences are Presidio's (shared/data/presidio-pii). A label is found when a finding of its kind shares a
character with it, covered when findings hold all of it. Where `presidio-analyzer` is installed, its own pattern
recognisers (blank spaCy model, no names) are measured in the same run. Speed is CPU time of the step on one core, on
the PEPs and on the code of this environment; the first pass, which compiles, is left out and told apart. The last line
printed is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from espalier.core.types import Document, Span
from espalier.data.flow.batch import to_batch
from espalier.data.pii.redact import Redactor
from espalier.data.pii.report import find_personal
from espalier.data.pii.rules import KINDS
from espalier.data.pii.spec import RedactSpec
from espalier.testing.labelled import Figures, compare

SHARED = Path(__file__).parents[2] / "shared" / "data"
LABELS = {
    "EMAIL_ADDRESS": "EMAIL",
    "CREDIT_CARD": "CARD",
    "US_SSN": "SSN",
    "IP_ADDRESS": "IP",
    "PHONE_NUMBER": "PHONE",
    "DOMAIN_NAME": "URL",
    "US_DRIVER_LICENSE": "DOCUMENT",
    "PERSON": "NAME",
    "ADDRESS": "ADDRESS",
}
PRESIDIO = {
    "EMAIL_ADDRESS": "EMAIL",
    "CREDIT_CARD": "CARD",
    "US_SSN": "SSN",
    "IP_ADDRESS": "IP",
    "PHONE_NUMBER": "PHONE",
    "URL": "URL",
    "US_DRIVER_LICENSE": "DOCUMENT",
    "IBAN_CODE": "IBAN",
    "CRYPTO": "CRYPTO",
}


def read_labelled() -> list[dict[str, Any]]:
    """The labelled sentences."""
    rows: list[dict[str, Any]] = json.loads((SHARED / "presidio-pii" / "generated_small.json").read_text())
    return rows


def measure_ours(rows: list[dict[str, Any]]) -> dict[str, Figures]:
    """Our rules on the labelled sentences; no list of names, no plug-in."""
    found: list[list[tuple[int, int, str]]] = [[] for _ in rows]
    for each in find_personal([row["full_text"] for row in rows], KINDS).to_pylist():
        found[each["document"]].append((each["start"], each["end"], each["kind"]))
    return compare(zip(map(labels_of, rows), found, strict=True), LABELS, also={"BIRTH_DATE": "DATE_TIME"})


def labels_of(row: dict[str, Any]) -> list[tuple[int, int, str]]:
    """(start, end, label) of a labelled sentence."""
    return [(span["start_position"], span["end_position"], span["entity_type"]) for span in row["spans"]]


def load_presidio() -> Any:
    """Presidio's analyser with its pattern recognisers alone, or None where it is not installed."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        return None
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    folder = Path(tempfile.mkdtemp()) / "blank"
    spacy.blank("en").to_disk(folder)
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": str(folder)}])
    engine.load()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])


def measure_presidio(analyzer: Any, rows: list[dict[str, Any]]) -> dict[str, Figures]:
    """Presidio's patterns on the same sentences, at its default threshold for patterns with context (0.4)."""
    found = []
    for row in rows:
        results = analyzer.analyze(row["full_text"], language="en", entities=list(PRESIDIO), score_threshold=0.4)
        found.append([(each.start, each.end, PRESIDIO[each.entity_type]) for each in results])
    return compare(zip(map(labels_of, rows), found, strict=True), LABELS, also={})


def read_text(folder: Path | None, megabytes: float) -> Iterator[tuple[str, list[str]]]:
    """(name, texts) of corpora of ordinary text, each of about so many megabytes."""
    if folder is not None:
        yield folder.name, fill([path for path in sorted(folder.rglob("*")) if path.is_file()], megabytes)
        return
    archive = SHARED / "peps" / "peps_even_rst.tar.gz"
    if archive.exists():
        with tarfile.open(archive) as opened:
            members = [opened.extractfile(member) for member in opened if member.isfile()]
            texts = [stream.read().decode(errors="replace") for stream in members if stream]
        times = max(1, round(megabytes * 1e6 / sum(map(len, texts))))
        yield "peps", texts * times
    yield "code", fill(sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")), megabytes)


def fill(paths: list[Path], megabytes: float) -> list[str]:
    """The texts of files until there are so many megabytes."""
    texts, size = [], 0
    for path in paths:
        text = path.read_bytes().decode(errors="replace")
        texts.append(text)
        size += len(text)
        if size > megabytes * 1e6:
            break
    return texts


def measure_speed(texts: list[str]) -> dict[str, float]:
    """MB/s of CPU time of the whole step over batches, of the first pass and of the best of three after it."""
    documents = [Document(str(number), text, Span("", "")) for number, text in enumerate(texts)]
    batches, size = [], 0
    for start in range(0, len(documents), 500):
        batches.append(to_batch(documents[start : start + 500]))
        size += sum(len(text.encode()) for text in texts[start : start + 500])
    redactor, passes = Redactor(RedactSpec()), []
    for _ in range(4):
        started = time.process_time()
        for batch in batches:
            redactor.apply(batch)
        passes.append(size / 1e6 / (time.process_time() - started))
    return {"mb": round(size / 1e6, 1), "first_mb_s": round(passes[0], 1), "mb_s": round(max(passes[1:]), 1)}


def measure_presidio_speed(analyzer: Any, texts: list[str], seconds: float = 10) -> float:
    """MB/s of CPU time of Presidio's patterns for the kinds that both find, on as much as takes a while."""
    done, started = 0, time.process_time()
    for text in texts:
        analyzer.analyze(text[:100_000], language="en", entities=list(PRESIDIO), score_threshold=0.4)
        done += len(text[:100_000].encode())
        if time.process_time() - started > seconds:
            break
    return round(done / 1e6 / (time.process_time() - started), 3)


def print_figures(title: str, figures: dict[str, Figures]) -> None:
    """A table of one finder's figures."""
    print(f"\n{title:<14}{'labels':>8}{'recall':>9}{'covered':>9}{'findings':>10}{'precision':>11}")
    for kind, each in figures.items():
        covered = f"{each.covered / each.labels:.3f}" if each.labels else "-"
        recall = "-" if each.recall is None else f"{each.recall:.3f}"
        precision = "-" if each.precision is None else f"{each.precision:.3f}"
        print(f"{kind:<14}{each.labels:>8}{recall:>9}{covered:>9}{each.findings:>10}{precision:>11}")


def total(figures: dict[str, Figures]) -> dict[str, float]:
    """Recall and precision over the kinds that patterns can find."""
    held = [each for kind, each in figures.items() if kind not in ("NAME", "ADDRESS")]
    labels, findings = sum(each.labels for each in held), sum(each.findings for each in held)
    found, right = sum(each.found for each in held), sum(each.right for each in held)
    return {"recall": round(found / labels, 4), "precision": round(right / findings, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=None, help="a folder of text files to measure the speed on")
    parser.add_argument("--mb", type=float, default=30, help="how much text of each corpus")
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    rows, analyzer = read_labelled(), load_presidio()
    ours = measure_ours(rows)
    print_figures("ours", ours)
    told: dict[str, Any] = {"ours": total(ours)}
    if analyzer is not None:
        theirs = measure_presidio(analyzer, rows)
        print_figures("presidio", theirs)
        told["presidio"] = total(theirs)
    print()
    for name, texts in read_text(arguments.text, arguments.mb):
        speed: dict[str, float] = measure_speed(texts)
        if analyzer is not None:
            speed["presidio_mb_s"] = measure_presidio_speed(analyzer, texts)
        print(f"{name:<8}" + "  ".join(f"{key} {value}" for key, value in speed.items()))
        told[name] = speed
    print(json.dumps(told))


if __name__ == "__main__":
    main()
