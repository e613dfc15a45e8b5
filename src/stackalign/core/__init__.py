"""Numerics: transforms, stacks, warps, registrars and their quality. No I/O, no GUI."""
