"""Unsloth's CPU backend for benchmarks/train.py, with the options of the job: 16-bit weights, its chunked loss, fused
AdamW, documents of like length together (it turns packing off on a CPU), loss on the assistant's tokens."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from meter import LORA, Meter, pin_threads, read_documents

pin_threads()
JOB = json.loads(Path(sys.argv[1]).read_text())
OPTIONS = dict(JOB["options"])
os.environ["UNSLOTH_CPU_COMPILE"] = "1" if OPTIONS.pop("compile", False) else "0"
os.environ["UNSLOTH_COMPILE_LOCATION"] = str(Path(JOB["out"]) / "compiled")

from unsloth import FastLanguageModel  # isort: skip  # noqa: E402  it patches what follows
from datasets import Dataset  # noqa: E402
from trainers import PLAIN, measure  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402


def main() -> None:
    meter = Meter(JOB)
    meter.imported()
    checkpointing = OPTIONS.pop("checkpointing", False)
    model, tokenizer = FastLanguageModel.from_pretrained(
        JOB["base"], max_seq_length=1024, load_in_4bit=False, use_gradient_checkpointing=checkpointing
    )
    model = FastLanguageModel.get_peft_model(model, **LORA, use_gradient_checkpointing=checkpointing)
    documents = [{"messages": document["messages"]} for document in read_documents(JOB)]
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        args=SFTConfig(output_dir=str(Path(JOB["out"]) / "runs"), **PLAIN, **OPTIONS),
        train_dataset=Dataset.from_list(documents),
    )
    compiled = os.environ["UNSLOTH_CPU_COMPILE"] == "1"
    measure(trainer, meter, warm_whole_pass=compiled)
    meter.report(passes=1 + compiled, dtype=str(model.dtype), attention=model.config._attn_implementation)


if __name__ == "__main__":
    main()
