"""transformers' Trainer with PEFT for benchmarks/train.py, as its examples have it, in bfloat16 and without padding
to more than the longest of a batch; documents of like length together; loss on the assistant's tokens."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from meter import LORA, Meter, pin_threads, read_documents

pin_threads()

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from trainers import PLAIN, measure  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)


def main() -> None:
    meter = Meter(json.loads(Path(sys.argv[1]).read_text()))
    job = meter.job
    meter.imported()
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    rows = []
    for document in read_documents(job):
        cut = tokenizer.apply_chat_template(
            document["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        labels = [id if kept else -100 for id, kept in zip(cut["input_ids"], cut["assistant_masks"], strict=True)]
        rows.append({"input_ids": cut["input_ids"], "labels": labels})
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.bfloat16),
        LoraConfig(**LORA, task_type="CAUSAL_LM"),
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(Path(job["out"]) / "runs"), **PLAIN, **job["options"]),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    measure(trainer, meter)
    meter.report(dtype=str(model.dtype), attention=model.config._attn_implementation)


if __name__ == "__main__":
    main()
