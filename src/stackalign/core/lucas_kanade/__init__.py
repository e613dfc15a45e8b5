"""Fits of translation to homography in 2-D and 3-D: the registrar LucasKanade."""
