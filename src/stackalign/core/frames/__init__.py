"""What is asked of and done to a frame before it is aligned: its faults, noise, holes, size and filters."""
