"""Hypothesis: the same examples on every run, no deadline (a first example pays for imports and compilation)."""

from hypothesis import settings

settings.register_profile("stackalign", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("stackalign")
