"""The loss of several adapters on the assistant's tokens of some documents, by PEFT in float32, one document at a time:
an independent look at what the contenders of benchmarks/train.py learnt."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from meter import pin_threads, read_documents

pin_threads()

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel  # noqa: E402

DOCUMENTS = 10


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    documents = [
        tokenizer.apply_chat_template(
            document["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        for document in read_documents(job)[:DOCUMENTS]
    ]
    base = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
    losses = {"base": score(base, documents)}
    adapted = None
    for name, folder in job["adapters"].items():
        if adapted is None:
            adapted = PeftModel.from_pretrained(base, folder, adapter_name=name)
        else:
            adapted.load_adapter(folder, adapter_name=name)
        adapted.set_adapter(name)
        losses[name] = score(adapted, documents)
    Path(job["out"], "figures.json").write_text(json.dumps(losses))


@torch.no_grad()
def score(model: PreTrainedModel, documents: list[dict[str, list[int]]]) -> float:
    """Mean negative log-likelihood of the assistant's tokens."""
    total, count = 0.0, 0
    for document in documents:
        ids, kept = torch.tensor([document["input_ids"]]), torch.tensor(document["assistant_masks"][1:]).bool()
        logp = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), -1)
        total -= float(logp.gather(1, ids[0, 1:, None])[kept].sum())
        count += int(kept.sum())
    return total / count


if __name__ == "__main__":
    main()
