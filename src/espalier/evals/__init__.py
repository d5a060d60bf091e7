"""Cases -> answers -> per-case values -> scores with intervals -> before/after -> verdict.

Knows: core and the store's example files. Does not know: models (it is given a `Generate`), prompts (it is given a
`Render`), training, or the registry.
"""
