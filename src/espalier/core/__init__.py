"""The words everyone shares: types, refs, ids, errors, config, ports, events, plugins, money, steps, operations.

Knows: the standard library, pydantic and YAML. Does not know: files (but for reading a config file), databases,
networks, tensors, or any stage.
"""
