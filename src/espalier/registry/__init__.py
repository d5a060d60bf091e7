"""Which model, from what, allowed where, by whom: versions, policy, approvals, aliases, lineage, cards.

Knows: core and the store. Does not know: how a model is trained, evaluated or served; it reads what those left as
artifacts.
"""
