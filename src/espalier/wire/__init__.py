"""Foreign JSON to core types and back: pure functions, used by our own routes and by outbound providers alike.

Knows: other people's shapes. Does not know: sockets, stores, keys, engines.
"""
