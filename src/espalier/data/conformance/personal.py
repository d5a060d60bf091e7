"""Personal data and secrets in rows about to be handed to somebody else: their kinds and places, never the values."""

from __future__ import annotations

from espalier.data.conformance.report import Findings

_ROWS_AT_ONCE = 512


class PersonalData:
    """Looks through the texts of rows, some hundred at a time, and notes one finding for each row that holds some."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._places: list[str] = []
        self._texts: list[str] = []

    def add(self, where: str, text: str) -> None:
        """A row to look at, now or with the next ones."""
        self._places.append(where)
        self._texts.append(text)
        if len(self._texts) == _ROWS_AT_ONCE:
            self.look()

    def look(self) -> None:
        """Look at what has been added."""
        from espalier.data.pii.report import find_personal

        texts = (text.encode("utf-8", "replace").decode() for text in self._texts)
        kinds: dict[int, set[str]] = {}
        for row in find_personal(texts).select(["document", "kind"]).to_pylist():
            kinds.setdefault(row["document"], set()).add(row["kind"])
        for number, found in sorted(kinds.items()):
            message = f"holds {', '.join(sorted(found))}"
            hint = "redact it (step redact), if it is not meant to leave"
            self._findings.add("warning", "personal data", self._places[number], message, hint)
        self._places, self._texts = [], []
