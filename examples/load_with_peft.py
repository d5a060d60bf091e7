"""The adapter outside Espalier: plain `transformers` and `peft`, no line of ours.

    espalier models export support@production exported
    python examples/load_with_peft.py exported BASE_FOLDER "the question"

BASE_FOLDER is the base it was trained on; `espalier models show` names it, `builtin:` bases lie in the installed
package under espalier/models/.
"""

from __future__ import annotations

import sys

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(adapter: str, base: str, question: str) -> None:
    """Print the greedy answer."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**asked, max_new_tokens=200, do_sample=False)
    print(tokenizer.decode(answer[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    main(*sys.argv[1:4])
