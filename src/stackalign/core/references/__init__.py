"""What frames are aligned with: a frame, the previous, a mean, all pairs; rounds and chains of these."""
