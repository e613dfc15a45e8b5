"""Resampling of images and stacks: splines, warps, regions, common grids."""
