"""Qt and napari: one panel a file, no arithmetic beyond display."""
