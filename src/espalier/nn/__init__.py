"""The model substrate of training and serving: bases, linear layers with adapters, attention. Knows no stage."""
