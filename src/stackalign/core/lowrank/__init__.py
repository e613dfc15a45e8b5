"""REALS: robust joint alignment by simultaneous low-rank and sparse decomposition."""
