"""What an export and an inspection say. Light to import: the command line knows these types before it does anything."""

from __future__ import annotations

from espalier.core.types import Spec
from espalier.data.formats.detect import Detection

REFUSED = "refused.jsonl"


class ExportReport(Spec):
    """What was written. `refused` counts, by reason, examples the format cannot hold; refused.jsonl lists them."""

    folder: str
    format: str
    container: str
    files: tuple[str, ...]
    examples: dict[str, int]  # written, by split
    refused: dict[str, int]

    def to_text(self) -> str:
        """For a terminal: the files, and what was left out."""
        told = ", ".join(f"{count} {split}" for split, count in self.examples.items() if count)
        lines = [f"{told} examples as {self.format} in {self.folder}: {', '.join(self.files)}"]
        lines += [f"{count} left out: {reason} (see {REFUSED})" for reason, count in self.refused.items()]
        return "\n".join(lines)


class Inspection(Spec):
    """What a file or folder holds. `recipe` is YAML to start from."""

    uri: str  # the file that was looked at
    detection: Detection
    recipe: str

    def to_text(self) -> str:
        """For a terminal."""
        found = self.detection
        head = f"{self.uri}: {found.title} ({found.format}), confidence {found.confidence:.0%}"
        return f"{head}\n{found.because}\n\nA recipe to start from:\n\n{self.recipe}"
