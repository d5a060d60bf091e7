"""What tasks share that answer a text: the text is cleaned alone, and the question is put around it afterwards.

So a template's words are in no document's text, where they would make all texts alike.
"""

from __future__ import annotations

import pyarrow as pa

from espalier.core.types import Message
from espalier.data.tasks.fields import Read
from espalier.data.tasks.gather import to_turns
from espalier.data.tasks.rows import to_examples


def ask(batch: pa.RecordBatch, read: Read | None, system: Read | None = None) -> pa.RecordBatch:
    """One example a document of n: the turns that `system` and `read` make of its text and tags, then its own turns.

    The text is `text`, and `input` as prompts call it.

    Without `read` the user's turn is the text alone. Raises InvalidInput for a template that fails.
    """
    conversations = []
    columns = (batch.column(name).to_pylist() for name in ("text", "tags", "messages"))
    for text, tags, answer in zip(*columns, strict=True):
        fields = {**dict(tags), "text": text, "input": text}
        turns = [Message("system", system(fields))] if system else []
        turns.append(Message("user", read(fields) if read else text))
        turns += [Message(turn["role"], turn["content"], turn["weight"]) for turn in answer]
        conversations.append(turns)
    return to_examples(batch, messages=to_turns(conversations))
