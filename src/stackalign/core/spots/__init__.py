"""Bright or dark spots: Gaussian fits, picks, tracks over a stack, and the motion that tracks agree on."""
