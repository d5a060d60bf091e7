"""Whether a dataset would be accepted elsewhere: the published limits of fine-tuning services, checked here."""
