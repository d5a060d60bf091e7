"""Writes answers.jsonl and pairs.jsonl: notes about meetings that were moved, and the date that holds.

Both dates of a note make a well-formed answer, and a model that was shown good answers alone learns the form before it
learns which date. Which of two answers is better is what a pair says.
"""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from pathlib import Path

TOPICS = ("budget", "printer", "network", "contract", "website", "training", "parking", "cleaning")
NAMES = ("Anna", "Bela", "Carl", "Dora", "Emil", "Freya", "Gino", "Hana")
NOTES = (
    "The {topic} meeting of {name} on {old} was moved to {new}.",
    "{name} cannot come on {old}; the {topic} meeting is on {new} instead.",
    "New date for the {topic} meeting with {name}: {new}, no longer {old}.",
    "The {topic} meeting is on {new}. {name} had asked for {old}.",
)


def make_pair(chance: random.Random) -> dict[str, str]:
    """One note, the date that holds (chosen) and the one that does not (rejected)."""
    old = date(2026, 1, 1) + timedelta(days=chance.randrange(365))
    new = old + timedelta(days=chance.choice([-9, -5, 2, 3, 7, 14, 30]))
    note = chance.choice(NOTES).format(topic=chance.choice(TOPICS), name=chance.choice(NAMES), old=old, new=new)
    return {
        "prompt": f"{note}\nWhen is the meeting?",
        "chosen": f"<date>{new}</date>",
        "rejected": f"<date>{old}</date>",
    }


def main() -> None:
    """The same files every time."""
    chance = random.Random(0)
    pairs = [make_pair(chance) for _ in range(500)]
    asked = [make_pair(chance) for _ in range(240)]
    answers = [{"prompt": one["prompt"], "completion": one["chosen"]} for one in asked]
    for name, rows in (("pairs", pairs), ("answers", answers)):
        lines = [json.dumps(row) for row in rows]
        Path(f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
