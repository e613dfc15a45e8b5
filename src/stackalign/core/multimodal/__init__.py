"""Register images of different modalities: invariant feature maps, a global search, refinement, and a verdict."""
