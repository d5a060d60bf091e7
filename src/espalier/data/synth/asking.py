"""What every task is made of: a desk to throw it at, a request around a text, a sentence that does not matter."""

from __future__ import annotations

from dataclasses import dataclass

from espalier.data.synth.draw import Draw
from espalier.data.synth.english import English
from espalier.data.synth.scenes import filler_sentence

Task = tuple[str, str]  # what the user says, what the assistant answers


@dataclass(frozen=True, slots=True)
class Desk:
    """What a task is made with: the dice, and the English that was found."""

    draw: Draw
    english: English


def ask(draw: Draw, instruction: str, text: str) -> str:
    """The instruction above the text or below it."""
    roll = draw.random()
    if roll < 0.5:
        return f"{instruction}\n{text}"
    if roll < 0.6:
        return f"{instruction}\n\n{text}"
    return f"{text}\n{instruction}" if roll < 0.9 else f"{text}\n\n{instruction}"


def quiet_sentence(desk: Desk) -> str:
    """A sentence that decides nothing: real English where there is some."""
    if desk.english.sentences and desk.draw.chance(0.4):
        return desk.draw.pick(desk.english.sentences)
    return filler_sentence(desk.draw)


AS_FORMAT = (
    "Give {keys} as {format}.", "Write {format} with {keys}.", "{format}: {keys}",
    "Answer as {format}. Wanted: {keys}", "Extract {keys}. Format: {format}.", "Turn this into {format}: {keys}",
    "Fill in {keys} ({format}).", "I need {keys}, written as {format}.",
)  # fmt: skip
