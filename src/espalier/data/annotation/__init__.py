"""Annotation: what people, rules and models say of examples; how far they agree; and versions made by their word."""
