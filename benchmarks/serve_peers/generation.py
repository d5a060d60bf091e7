"""What the transformers-based contenders of benchmarks/serve.py share: the model, adapters by PEFT, ids, streamers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from espalier.core.types import Message
from espalier.tokens.tokenizer import ChatTokenizer, load_tokenizer
from serve_peers.meter import Meter


def load_model(job: dict[str, Any]) -> PreTrainedModel:
    """The base in the job's dtype, which never ends an answer by itself."""
    torch.set_num_threads(job["threads"])
    model = LlamaForCausalLM.from_pretrained(job["base"], dtype=getattr(torch, job["dtype"]))
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=None)
    return model.eval()


def attach(model: PreTrainedModel, job: dict[str, Any]) -> Any:
    """The model with the job's adapters, in its own dtype (PEFT would keep them in float32, which is slower)."""
    if not job["adapters"]:
        return model
    from peft import PeftModel

    options = {"autocast_adapter_dtype": False, "low_cpu_mem_usage": True}
    peft = PeftModel.from_pretrained(model, job["adapters"][0], adapter_name=name_of(0), **options)
    for number, folder in enumerate(job["adapters"][1:], start=1):
        peft.load_adapter(folder, adapter_name=name_of(number), **options)
    return peft.eval()


def name_of(number: int) -> str:
    """Of an adapter, as PEFT knows it; `__base__` is its word for none."""
    return f"a{number}" if number >= 0 else "__base__"


def encode(tokenizer: ChatTokenizer, question: dict[str, Any]) -> list[int]:
    """The prompt as our engine encodes it."""
    return tokenizer.encode_prompt([Message(role="user", content=question["text"])])


def tokenizer_of(job: dict[str, Any]) -> ChatTokenizer:
    return load_tokenizer(Path(job["base"]))


class Clock(BaseStreamer):
    """Notes when the tokens of a batch come; `generate` puts the prompts first."""

    def __init__(self, meter: Meter, numbers: list[int]) -> None:
        self._meter, self._numbers, self._prompts = meter, numbers, True

    def put(self, value: torch.Tensor) -> None:
        if self._prompts:
            self._prompts = False
            return
        for number in self._numbers:
            self._meter.note(number)

    def end(self) -> None:
        pass
