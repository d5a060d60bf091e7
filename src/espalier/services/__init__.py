"""The use cases: one typed function per operation, `(Context, Request) -> Response`; stages load inside functions."""
