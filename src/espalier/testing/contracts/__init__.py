"""Suites of behaviour that every implementation of a port passes, ours and a plug-in's: subclass, give the fixtures."""
