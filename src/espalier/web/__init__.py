"""The pages: runs, models, playground. They call the same operations as every other face, with no privileged route.

Python only (NiceGUI, extra `[web]`); its scripts come from its wheel, so the pages work with no network.
"""
