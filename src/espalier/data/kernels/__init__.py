"""Compiled loops over the raw UTF-8 of Arrow text columns; no Python object for each document."""
