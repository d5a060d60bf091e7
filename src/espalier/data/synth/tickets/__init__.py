"""The demo's folder: the support tickets of Larkspur Instruments, a firm that does not exist.

Knows how such tickets read and look as files; knows nothing of readers, cleaning or training.
"""
