"""The HTTP face: a FastAPI control plane with one route per operation, and server-sent events for streams."""
