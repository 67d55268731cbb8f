"""Models, and what is read from them."""

VERSION = 0
"""Raised where a number that is read from a model moves: it counts on top of the version of each experiment that reads
one, so that their results are outdated."""
