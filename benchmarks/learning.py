"""Does it learn, on data nobody here wrote? Tunes `seedling` on the E2E restaurants and on BANKING77, and looks at what
it forgot.

    python benchmarks/learning.py [--parts e2e,banking77] [--threads 1] [--data ../shared/data]

E2E (Novikova et al. 2017, CC BY-SA 4.0): trained on its training set, BLEU on its development set, every text of a
record a reference (sacrebleu). BANKING77 (Casanueva et al. 2020, CC BY 4.0): a tenth is held out, as a head and as
generation.
Forgetting: perplexity on text held out from what the base was made of, before and after E2E, without and with replay.
Everything goes through the product's own runner and engine; a stopped benchmark goes on where it stood (`--work`).
The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espalier.core.events import Event, ignore
from espalier.core.types import Example, Message, SamplingSpec
from espalier.store.examples import write_examples
from espalier.train.corpus import Source
from espalier.train.job import Job
from espalier.train.recipe import TrainSpec
from espalier.train.runner import make_ready, run

HERE = Path(__file__).resolve().parent
BASE = "builtin:seedling"
COMMON: dict[str, Any] = {
    "base": BASE,
    "context_tokens": 256,
    "pack_tokens": 1024,
    "packs_per_step": 4,
    "window_documents": 2048,
    "schedule": "cosine",
    "warmup_steps": 50,
    "validation_examples": 256,
    "checkpoint_every_s": 60,
}
E2E: dict[str, dict[str, Any]] = {
    "last layer, 500 steps": {"tune": "full", "freeze": {"layers_below": 5}, "lr": 1e-3, "steps": 500},
    "lora r8": {"lora": {"rank": 8, "alpha": 16}, "lr": 5e-3, "epochs": 2},
    "lora r8, 500 steps": {"lora": {"rank": 8, "alpha": 16}, "lr": 5e-3, "steps": 500},
    "lora r8, 500 steps + replay": {
        "lora": {"rank": 8, "alpha": 16},
        "lr": 5e-3,
        "steps": 500,
        "mix": {"general": 0.25},
    },
    "full": {"tune": "full", "lr": 1e-3, "epochs": 2},
}
BANKING: dict[str, dict[str, Any]] = {
    "head on a frozen base": {"method": "classify", "tune": "head", "lr": 1e-2, "epochs": 10},
    "head + lora r16": {"method": "classify", "lora": {"rank": 16}, "lr": 3e-3, "epochs": 5},
    "generation, lora r16": {"method": "sft", "lora": {"rank": 16}, "lr": 4e-3, "epochs": 5},
    "generation, full": {"method": "sft", "tune": "full", "lr": 1e-3, "epochs": 5},
}


class Bench:
    """One work folder: datasets, trained folders, and the figures of those that are done."""

    def __init__(self, work: Path, data: Path, threads: int) -> None:
        self.work, self.data, self.threads = work, data, threads

    def train(self, name: str, dataset: Path, over: dict[str, Any], **mix: Path) -> dict[str, Any]:
        """Train once; a second call gives the figures of the first."""
        folder = self.work / name.replace(" ", "-").replace(",", "").replace("+", "and")
        done = folder / "figures.json"
        if done.is_file():
            return json.loads(done.read_text())
        spec = _spec({**COMMON, **over, "threads": self.threads})
        job = Job(
            method=spec.method or "sft",
            spec=spec,
            sources=(Source("", dataset), *(Source(key, path, share=spec.mix[key]) for key, path in mix.items())),
            out_dir=folder / "made",
            checkpoint_dir=folder / "state",
            cache_dir=self.work / "cache",
        )
        result = run(job, _reporter(name))
        figures = {
            "folder": str(folder / "made"),
            "tune": spec.tune,
            "trained": result.trained_parameters,
            "cpu_s": round(result.progress.cpu_s),
            "tokens": result.progress.tokens,
            "validation_loss": result.progress.validation_loss,
        }
        done.write_text(json.dumps(figures))
        return figures

    def make(self, name: str, splits: dict[str, list[Example]]) -> Path:
        """A dataset folder."""
        folder = self.work / name
        for split, examples in splits.items():
            write_examples(folder / "data" / f"{split}-00000.parquet", examples)
        return folder


def bench_e2e(bench: Bench) -> dict[str, Any]:
    """BLEU of every way to tune, and of the base as it is."""
    rows = list(_rows(bench.data / "e2e-nlg" / "trainset.csv.gz"))
    examples = [Example(f"e2e-{n}", _turns(row["mr"], row["ref"])) for n, row in enumerate(rows)]
    random.Random(0).shuffle(examples)
    dataset = bench.make("e2e", {"train": examples[512:], "validation": examples[:512]})
    general = make_general(bench)
    references: dict[str, list[str]] = {}
    for row in _rows(bench.data / "e2e-nlg" / "devset.csv.gz"):
        references.setdefault(row["mr"], []).append(row["ref"])
    table = {"frozen base": {"trained": 0, "cpu_s": 0, **score_bleu(bench, references, BASE, None)}}
    table["frozen base"]["perplexity"] = measure_perplexity(bench, general, BASE, None)
    for name, over in E2E.items():
        mix = {"general": general} if "mix" in over else {}
        figures = bench.train(f"e2e {name}", dataset, over, **mix)
        base, adapter = _made(figures)
        table[name] = {key: figures[key] for key in ("trained", "cpu_s", "tokens", "validation_loss")}
        table[name] |= score_bleu(bench, references, base, adapter)
        table[name]["perplexity"] = measure_perplexity(bench, general, base, adapter)
        print(name, table[name], flush=True)
    return table


def score_bleu(bench: Bench, references: dict[str, list[str]], base: str, adapter: Path | None) -> dict[str, Any]:
    """Corpus BLEU of greedy answers to every record of the development set, all its texts being references."""
    import sacrebleu

    records = list(references)
    answers = ask(bench, records, base, adapter, max_tokens=96)
    widest = max(map(len, references.values()))
    streams = [[references[r][i] if i < len(references[r]) else None for r in records] for i in range(widest)]
    return {"bleu": round(sacrebleu.corpus_bleu(answers, streams).score, 2)}


def bench_banking(bench: Bench) -> dict[str, Any]:
    """Accuracy with Wilson's 95 % interval, of heads and of generation, on a tenth held out."""
    with (bench.data / "banking77" / "train.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    random.Random(0).shuffle(rows)
    examples = [
        Example(f"b-{n}", _turns(row["text"], row["category"]), tags={"label": row["category"]})
        for n, row in enumerate(rows)
    ]
    test = examples[:1000]
    dataset = bench.make("banking77", {"test": test, "validation": examples[1000:1500], "train": examples[1500:]})
    table = {}
    for name, over in BANKING.items():
        figures = bench.train(f"banking {name}", dataset, over)
        base, adapter = _made(figures)
        answers = ask(bench, [e.messages[0].content for e in test], base, adapter, max_tokens=32)
        right = sum(answer.strip() == e.tags["label"] for answer, e in zip(answers, test, strict=True))
        table[name] = {"trained": figures["trained"], "cpu_s": figures["cpu_s"], **_accuracy(right, len(test))}
        print(name, table[name], flush=True)
    return table


def ask(bench: Bench, questions: list[str], base: str, adapter: Path | None, *, max_tokens: int) -> list[str]:
    """Greedy answers of the product's own engine."""
    from espalier.services.answering import open_model

    with open_model(base, adapter=adapter, batch=64, threads=bench.threads) as generate:
        sampling = SamplingSpec(temperature=0.0, max_tokens=max_tokens)
        return [answer.text for answer in generate([[Message("user", q)] for q in questions], sampling)]


def make_general(bench: Bench) -> Path:
    """What the base was made of, under another seed: a part to replay, and a part held out."""
    from espalier.data.synth.curriculum import CurriculumSpec, generate_curriculum

    folder = bench.work / "general"
    if not (folder / "data" / "validation-00000.parquet").is_file():
        made = [
            list(generate_curriculum(CurriculumSpec(seed=seed, examples=count), [bench.data]))
            for seed, count in ((77, 12_000), (78, 600))
        ]
        bench.make("general", {"train": made[0], "validation": made[1]})
    return folder


def measure_perplexity(bench: Bench, general: Path, base: str, adapter: Path | None) -> float:
    """exp of the mean negative log-likelihood of every token of the held-out part."""
    from espalier.train.loop import evaluate
    from espalier.train.parallel import one_thread_each

    held_out = bench.work / "general-held-out"
    if not held_out.exists():
        (held_out / "data").mkdir(parents=True)
        (held_out / "data" / "train-00000.parquet").hardlink_to(general / "data" / "validation-00000.parquet")
    spec = _spec({**COMMON, "method": "cpt", "base": base, "validation_examples": 0, "context_tokens": 1024})
    job = Job("cpt", spec, (Source("", held_out),), bench.work, bench.work / "none", bench.work / "cache", adapter)
    ready = make_ready(job, ignore)
    documents = ready.prepared.documents
    packs = ready.plan.packs([documents.strip(n) for n in range(len(documents))])
    with one_thread_each(bench.threads) as world:
        loss, _ = evaluate(ready.learner, world, packs)
    return round(math.exp(loss), 3)


def _made(figures: dict[str, Any]) -> tuple[str, Path | None]:
    """(base, adapter) to load what a training wrote."""
    folder = figures["folder"]
    return (f"path:{folder}", None) if figures["tune"] == "full" else (BASE, Path(folder))


def _accuracy(right: int, count: int) -> dict[str, Any]:
    from espalier.evals.intervals import wilson

    found = wilson(right, count)
    return {
        "accuracy": round(right / count, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "cases": count,
    }


def _spec(values: dict[str, Any]) -> TrainSpec:
    from espalier.train.method import load_method

    return load_method(values.get("method", "sft")).spec.model_validate(values)


def _turns(question: str, answer: str) -> list[Message]:
    return [Message("user", question), Message("assistant", answer)]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _reporter(name: str) -> Any:
    began = time.monotonic()

    def emit(event: Event) -> None:
        data = event.data
        if event.kind == "train.eval" or (event.kind == "train.step" and data["step"] % 100 == 0):
            loss = data.get("validation_loss", data.get("loss"))
            print(f"{name}: {time.monotonic() - began:.0f} s, step {data['step']}, {event.kind} {loss:.4f}", flush=True)

    return emit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="e2e,banking77")
    parser.add_argument("--rows", default="", help="only the E2E or BANKING77 rows that contain this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=HERE.parent / ".benchmarks" / "learning")
    given = parser.parse_args()
    for table in (E2E, BANKING):
        for name in [name for name in table if given.rows not in name]:
            del table[name]
    bench = Bench(given.work, given.data, given.threads)
    parts = {"e2e": bench_e2e, "banking77": bench_banking}
    print(json.dumps({part: parts[part](bench) for part in given.parts.split(",")}))


if __name__ == "__main__":
    main()
