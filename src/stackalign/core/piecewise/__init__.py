"""Piecewise-rigid motion: blocks, their series of displacements and the registrar."""
