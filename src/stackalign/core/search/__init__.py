"""Where a frame lies, to the pixel: correlation over the overlap."""
