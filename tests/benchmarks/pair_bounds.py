"""How exactly the corners of a template can be known at all: the bound of Cramer and Rao, from its slopes and noise."""

import numpy as np

from stackalign.core.multimodal.corners import matrices_of


def corner_bound(template: np.ndarray, noise: float) -> float:
    """Return the least root mean square distance of four corners from where they belong, pixels of the template.

    White noise on the template, none on the image; the image is known, up to a gain and an offset of brightness, and a
    homography moves it. Fisher's information is the sum over all pixels of the products of what the eight offsets of
    the corners, the gain and the offset change (Kay, Fundamentals of Statistical Signal Processing I, 1993, eq. 3.31).

    Parameters
    ----------
    template : ndarray (y, x)
        Without noise.
    noise : float
        Standard deviation.
    """
    h, w = template.shape
    slope_y, slope_x = np.gradient(template.astype(float))
    places = np.stack([*np.mgrid[:h, :w].reshape(2, -1), np.ones(h * w)])
    rows, small = [np.ones(h * w), template.ravel().astype(float)], 1e-3
    for corner in range(4):
        for axis in range(2):
            offsets = np.zeros((4, 2))
            offsets[corner, axis] = small
            moved = matrices_of(offsets, (h, w)) @ places
            flow = (moved[:2] / moved[2] - places[:2]) / small
            rows.append(slope_y.ravel() * flow[0] + slope_x.ravel() * flow[1])
    changes = np.stack(rows)
    covariance = np.linalg.inv(changes @ changes.T / noise**2)[2:, 2:]
    return float(np.sqrt(np.trace(covariance) / 4))
