"""Personal data and secrets: found by patterns with validators and by a list of names, replaced by what they are."""
