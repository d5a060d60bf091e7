"""Public test support: suites our own implementations pass, and a base model small enough for any test."""
