"""Training a head that gives a text scores: labels (classify) or one reward."""
