"""Whether a request fits a context: the one refusal all engines share."""

from __future__ import annotations

from espalier.core.errors import InvalidInput


def check_room(prompt_tokens: int, max_tokens: int, context_tokens: int) -> None:
    """Raises InvalidInput for an empty prompt, and where prompt and answer could be longer than the context."""
    room = context_tokens - prompt_tokens
    if prompt_tokens == 0:
        raise InvalidInput("the prompt has no token", hint="send at least one message")
    if max_tokens > room:
        raise InvalidInput(
            f"the prompt has {prompt_tokens} tokens and {max_tokens} more are asked for; "
            f"the context holds {context_tokens}",
            hint=f"ask for at most {room} tokens, or shorten the prompt"
            if room > 0
            else f"shorten the prompt by at least {1 - room} tokens, for instance by giving fewer examples",
        )
