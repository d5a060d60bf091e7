"""Versioned prompts and their rendering: Jinja templates that turn a case's variables into messages.

Knows: core, the store, jinja2. Does not know: models, tokens, chat templates of a model, or who asks.
"""
