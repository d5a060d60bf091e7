"""Cleaning steps: pure functions from documents to documents, each with typed parameters; every drop has a reason."""
