"""The `openai` client against `espalier serve`: streaming, then the answer followed back to what it was trained on.

espalier serve &
espalier keys create                 # shows the secret once
OPENAI_API_KEY=esp_... python examples/ask_with_openai.py support@production "$(cat ticket.txt)"
"""

from __future__ import annotations

import os
import sys

import openai

from espalier.sdk.client import Client


def main(model: str, question: str) -> None:
    """Ask, print the answer as it comes, and then where it came from."""
    url = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8321/v1")
    request = ""
    for chunk in openai.OpenAI(base_url=url).chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=200, stream=True
    ):
        request = chunk.id
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
    print("\n")
    with Client() as client:
        print(client.inference.trace(request=request).to_text())


if __name__ == "__main__":
    main(*sys.argv[1:3])
