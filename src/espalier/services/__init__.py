"""The use cases: one typed function per operation, `(Context, Request) -> Response`; stages are imported inside functions."""
