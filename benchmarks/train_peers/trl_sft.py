"""TRL's SFTTrainer for benchmarks/train.py: as it comes, or with the options of the job.

As it comes: weights in their file's or TRL's own dtype, batches of 8 padded documents, gradient checkpointing, bf16
autocast, a loss on every token. Only the LoRA config, the learning rate and logging are set.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from meter import LORA, Meter, pin_threads, read_documents

pin_threads()

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from trainers import PLAIN, measure  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402


def main() -> None:
    meter = Meter(json.loads(Path(sys.argv[1]).read_text()))
    job = meter.job
    meter.imported()
    options = dict(job["options"])
    documents = [{"messages": document["messages"]} for document in read_documents(job)]
    trainer = SFTTrainer(
        model=job["base"],
        args=SFTConfig(output_dir=str(Path(job["out"]) / "runs"), **PLAIN, **options),
        train_dataset=Dataset.from_list(documents),
        peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
    )
    compiled = bool(options.get("torch_compile"))
    measure(trainer, meter, warm_whole_pass=compiled)
    told = {"dtype": str(trainer.model.dtype), "attention": trainer.model.config._attn_implementation}
    meter.report(**told, passes=1 + compiled, batch=trainer.args.per_device_train_batch_size)


if __name__ == "__main__":
    main()
