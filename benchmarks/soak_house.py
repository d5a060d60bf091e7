"""What benchmarks/soak.py stands on: a workspace with many adapters on one tiny base, and what each of them says.

Every adapter is a model of its own with one approved version; `moving` is a model whose versions are three of them, so
that its alias can be moved. What an adapter says is asked of PEFT, one question at a time, before anything is served.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOVING, MOVES = "moving", 3
LONGEST_ANSWER = 40
_FIRST_SEED = 7  # of the adapters; none of 16 from here on comes near a tie
_CLEAR = 1e-4  # by how much the likeliest token's logit leads at least: kernels differ in the last bits, by a hundredth
_SYSTEM = "You answer for the house. Speak to the point, name the ticket, and never promise a date."
QUESTIONS = (
    "The door of the workshop does not close.",
    "Which invoice is still open?",
    "Ticket LK-20417: the heating is loud at night, the tenant asks for a visit before Friday.",
    "Greet the new neighbour.",
    "Two lifts are out of order in the same building; whom do we call first, and what do we tell those who wait?",
    "Summarise: the meter was read twice and the numbers differ.",
)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and how it ended."""

    text: str
    finish_reason: str
    tokens: int


@dataclass(slots=True)
class House:
    """Where everything stands. `adapters` by model name; `says` by (adapter's digest, number of the question)."""

    workspace: Path
    base: str
    adapters: dict[str, str]
    moving: dict[str, str]  # version of `moving` -> digest
    admin: str = ""  # keys
    user: str = ""
    says: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    _ends: frozenset[int] = frozenset()
    _tokenizer: Any = None

    def expected(self, digest: str, question: int, most_tokens: int) -> Said:
        """What an adapter alone answers to a question, greedily, in so many tokens."""
        ids = self.says[digest, question][:most_tokens]
        stop = next((place for place, id in enumerate(ids) if id in self._ends), None)
        kept = ids if stop is None else ids[:stop]
        return Said(self._tokenizer.decode(kept), "length" if stop is None else "stop", len(kept) + (stop is not None))


def messages_of(question: int) -> list[dict[str, str]]:
    """A question as it is asked; all begin alike, so that prefixes are found in the cache."""
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": QUESTIONS[question]}]


def make_house(folder: Path, adapters: int) -> House:
    """Base, adapters, versions, keys and what all of them say.

    Raises ValueError when two say the same, or one says what another CPU or batch might round to another answer.
    """
    from espalier.core.config import PolicyConfig
    from espalier.gateway.keys import KeyRing
    from espalier.nn.lora import LoraSpec
    from espalier.registry.aliases import promote
    from espalier.registry.approvals import approve
    from espalier.registry.versions import Registration, register
    from espalier.store.store import open_store
    from espalier.store.workspace import init_workspace
    from espalier.testing.tiny import make_tiny_adapter, make_tiny_base

    base = make_tiny_base(folder / "base")
    made = [
        make_tiny_adapter(
            folder / f"adapter-{number:02}", base, LoraSpec(rank=2 + number % 7, alpha=8), seed=_FIRST_SEED + number
        )
        for number in range(adapters)
    ]
    (folder / "project").mkdir()
    store = open_store(init_workspace(folder / "project"))
    policy = PolicyConfig(four_eyes=False, require_report=False, require_dataset=False)
    facts = json.loads((made[0] / "espalier.json").read_text())

    def version(name: str, adapter: str) -> str:
        parts = Registration(name=name, base=facts["base"], base_digest=facts["base_digest"], adapter=adapter)
        return approve(store, policy, register(store, parts, actor="ann").ref, actor="bob").ref

    house = House(folder / "project", facts["base"], {}, {})
    for number, place in enumerate(made):
        digest = store.artifacts.put("adapter", place).digest
        name = f"tenant-{number:02}"
        house.adapters[name] = digest
        promote(store, version(name, digest), "production", actor="bob")
        if number < MOVES:
            house.moving[version(MOVING, digest)] = digest
    promote(store, next(iter(house.moving)), "production", actor="bob")
    keys = KeyRing(store)
    house.admin = keys.create("admin", role="admin").secret
    house.user = keys.create("clients", budget_nusd=10**15, requests_per_minute=10**9).secret
    store.close()
    _listen(house, base, dict(zip(house.adapters.values(), made, strict=True)))
    return house


def _listen(house: House, base: Path, folders: dict[str, Path]) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from espalier.core.types import Message
    from espalier.nn.base import load_base

    torch.set_num_threads(1)
    loaded = load_base(f"path:{base}", fetch=False)
    house._ends, house._tokenizer = loaded.eos_ids, loaded.tokenizer
    prompts = [
        loaded.tokenizer.encode_prompt([Message(**message) for message in messages_of(number)])
        for number in range(len(QUESTIONS))
    ]
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = PeftModel.from_pretrained(model, folders[next(iter(folders))], adapter_name=next(iter(folders)))
    for digest, folder in folders.items():
        if digest not in peft.peft_config:
            peft.load_adapter(folder, adapter_name=digest)
    peft.eval()
    for digest in ("", *folders):
        if digest:
            peft.set_adapter(digest)
        for number, prompt in enumerate(prompts):
            with peft.disable_adapter() if not digest else torch.inference_mode():
                house.says[digest, number] = _answer(peft, prompt, sorted(loaded.eos_ids))
    for number in range(len(QUESTIONS)):
        if len({tuple(ids) for (_, asked), ids in house.says.items() if asked == number}) < len(folders) + 1:
            raise ValueError(f"two adapters give the same answer to question {number}")


def _answer(model: Any, prompt: list[int], ends: list[int]) -> list[int]:
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        found = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=LONGEST_ANSWER, do_sample=False,
            eos_token_id=ends, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    for logits in found.logits:
        first, second = logits[0].topk(2).values.tolist()
        if first - second < _CLEAR:
            raise ValueError(f"an answer hangs on {first - second:.1e} between two tokens: take another _FIRST_SEED")
    answer: list[int] = found.sequences[0, len(prompt) :].tolist()
    return answer


def median(numbers: list[float]) -> float:
    """Of at least one number."""
    ordered = sorted(numbers)
    return ordered[math.floor(len(ordered) / 2)]
