"""Joint alignment on the processor: compiled functions, frame by frame, in threads."""
