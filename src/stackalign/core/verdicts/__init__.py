"""Whether an answer is to be believed: votes of blocks, consensus, continuity, residuals of motion."""
