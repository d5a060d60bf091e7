"""Made-up text, by seed: the curriculum of the small base model, and the ticket folder of the demo.

Knows no tokenizer, no model and no store: it yields `Example`s and writes plain files.
"""
