"""Other people's row shapes and our Example, both ways: what cannot be held is refused with a reason, never dropped."""
