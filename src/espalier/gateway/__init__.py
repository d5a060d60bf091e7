"""Who may ask what, through which door, at what cost: keys, limits, budgets, prices, routes, and the OpenAI endpoint.

Knows: HTTP, the store. Does not know: models (it is handed a `ChatProvider`) or the registry (it is handed a
`Resolver`).
"""
