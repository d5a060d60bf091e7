"""Whether what comes in now is still what a model was trained on: two populations of texts, tested slice by slice."""
