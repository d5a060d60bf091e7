"""The permanent oracle: any mixed batch is answered as PEFT answers for each adapter alone (float32, greedy)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch

from espalier.core.config import ServeConfig
from espalier.core.types import Generation, Message, SamplingSpec
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.quantized import QuantizedLinear
from espalier.serve.engine import Engine

# peft 0.21 reads a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

GREEDY = SamplingSpec(max_tokens=24)
SHARED = "Answer each ticket as a record. Keep to the schema. "  # long enough to be found in the cache and reused
CASES = [
    ("", "hello there"),
    ("a", "hello there"),
    ("b", "hello there"),
    ("c", "hello there"),
    ("a", SHARED + "My printer is on fire, and so is my desk."),
    ("a", SHARED + "The invoice is wrong."),
    ("b", SHARED + "The invoice is wrong."),
    ("d", SHARED * 4),
    ("", SHARED + "0123456789"),
]


def ask(text: str) -> list[Message]:
    return [Message("user", text)]


@pytest.fixture(scope="module")
def expected(adapter_folders: dict[str, Path], tiny_folder: Path) -> dict[tuple[str, str], tuple[int, ...]]:
    return ask_peft(load_base(f"path:{tiny_folder}"), adapter_folders)


def ask_peft(base: LoadedBase, adapter_folders: dict[str, Path]) -> dict[tuple[str, str], tuple[int, ...]]:
    """PEFT's own answers, one at a time, each adapter alone."""
    names = list(adapter_folders)
    wrapped = peft.PeftModel.from_pretrained(base.model, adapter_folders[names[0]], adapter_name=names[0])
    for name in names[1:]:
        wrapped.load_adapter(adapter_folders[name], adapter_name=name)
    wrapped.eval()
    found = {}
    for adapter, text in CASES:
        ids = torch.tensor([base.tokenizer.encode_prompt(ask(text))])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 24, "do_sample": False}
        with torch.inference_mode():
            if adapter:
                wrapped.set_adapter(adapter)
                out = wrapped.generate(**given)
            else:
                with wrapped.disable_adapter():
                    out = wrapped.generate(**given)
        found[adapter, text] = tuple(out[0, ids.shape[1] :].tolist())
    assert len(set(found.values())) == len(CASES), "the cases must differ, or a wrong adapter would go unseen"
    return found


def make_engine(load_tiny: Callable[[], LoadedBase], folders: dict[str, Path], **config: int) -> Engine:
    engine = Engine(load_tiny(), ServeConfig(max_context_tokens=400, **config))
    for name, folder in folders.items():
        engine.load_adapter(name, folder)
    return engine


def answer_together(engine: Engine, cases: list[tuple[str, str]]) -> list[Generation]:
    """All cases in flight at once: each from a thread of its own, and the engine's thread started only then."""
    answers: dict[int, Generation] = {}

    def run(i: int, adapter: str, text: str) -> None:
        answers[i] = engine.generate([ask(text)], GREEDY, adapter)[0]

    with engine._turn:  # no step until everybody has asked
        engine.start()
        threads = [threading.Thread(target=run, args=(i, *case)) for i, case in enumerate(cases)]
        for thread in threads:
            thread.start()
            while len(engine._tickets) < threads.index(thread) + 1:
                thread.join(0.001)
    for thread in threads:
        thread.join()
    engine.stop()
    return [answers[i] for i in range(len(cases))]


@pytest.mark.parametrize(
    "config", [{"max_batch": 16}, {"max_batch": 3, "step_budget_tokens": 16}], ids=["wide", "narrow"]
)
def test_a_mixed_batch_equals_peft_alone_in_every_order(
    load_tiny: Callable[[], LoadedBase],
    adapter_folders: dict[str, Path],
    expected: dict[tuple[str, str], tuple[int, ...]],
    config: dict[str, int],
) -> None:
    engine = make_engine(load_tiny, adapter_folders, **config)
    for rotation in range(len(CASES)):
        for order in (CASES[rotation:] + CASES[:rotation], (CASES[rotation:] + CASES[:rotation])[::-1]):
            answers = answer_together(engine, order)
            assert [answer.token_ids for answer in answers] == [expected[case] for case in order]


def test_every_order_of_four_adapters_on_one_prompt_equals_peft(
    load_tiny: Callable[[], LoadedBase],
    adapter_folders: dict[str, Path],
    expected: dict[tuple[str, str], tuple[int, ...]],
) -> None:
    engine = make_engine(load_tiny, adapter_folders, max_batch=4)
    for order in itertools.permutations(CASES[:4]):
        answers = answer_together(engine, list(order))
        assert [answer.token_ids for answer in answers] == [expected[case] for case in order]


def test_the_control_a_wrong_adapter_is_seen(
    load_tiny: Callable[[], LoadedBase],
    adapter_folders: dict[str, Path],
    expected: dict[tuple[str, str], tuple[int, ...]],
) -> None:
    swapped = {**adapter_folders, "a": adapter_folders["d"], "d": adapter_folders["a"]}
    engine = make_engine(load_tiny, swapped)
    answers = answer_together(engine, CASES)
    wrong = {case for case, answer in zip(CASES, answers, strict=True) if answer.token_ids != expected[case]}
    assert wrong == {case for case in CASES if case[0] in {"a", "d"}}


def test_a_batch_for_evaluation_equals_peft(
    load_tiny: Callable[[], LoadedBase],
    adapter_folders: dict[str, Path],
    expected: dict[tuple[str, str], tuple[int, ...]],
) -> None:
    engine = make_engine(load_tiny, adapter_folders, max_batch=2)
    for adapter in ("", *adapter_folders):
        texts = [text for name, text in CASES if name == adapter]
        answers = engine.generate([ask(text) for text in texts], GREEDY, adapter)
        assert [answer.token_ids for answer in answers] == [expected[adapter, text] for text in texts]


def test_a_base_in_int8_answers_as_peft_on_what_its_codes_stand_for(
    tiny_folder: Path,
    adapter_folders: dict[str, Path],
    expected: dict[tuple[str, str], tuple[int, ...]],
) -> None:
    def load_int8() -> LoadedBase:
        return load_base(f"path:{tiny_folder}", quantise="int8")

    plain = load_base(f"path:{tiny_folder}")
    with torch.no_grad():
        for name, layer in load_int8().model.named_modules():
            if isinstance(layer, QuantizedLinear):
                plain.model.get_submodule(name).weight.copy_(layer.weight.dequantise(torch.float32))
    wanted = ask_peft(plain, adapter_folders)
    assert wanted != expected, "quantising must show, or a base that is not held in codes would go unseen"
    for config in ({"max_batch": 16}, {"max_batch": 3, "step_budget_tokens": 16}):
        answers = answer_together(make_engine(load_int8, adapter_folders, **config), CASES)
        assert [answer.token_ids for answer in answers] == [wanted[case] for case in CASES]
