"""Huge TIFF files that take no room: the pixels are a hole in a sparse file."""

import struct


def sparse_bigtiff(path, shape, *, chained=True):
    """Write a BigTIFF of uint16 zeros, (t, y, x), with a page directory for every frame, or for the first alone.

    Written by hand: tifffile takes minutes to make as many pages.
    """
    count, height, width = shape
    nbytes = height * width * 2
    start = 16 + count * nbytes  # the directories follow the pixels
    size = 8 + 20 * 8 + 8
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 16, None), (277, 3, 1)]
    tags += [(278, 4, height), (279, 16, nbytes)]
    size = 8 + 20 * len(tags) + 8
    directories = []
    for t in range(count if chained else 1):
        entries = b"".join(
            struct.pack("<HHQ", tag, kind, 1) + struct.pack("<Q", 16 + t * nbytes if value is None else value)
            for tag, kind, value in tags
        )
        following = start + (t + 1) * size if chained and t + 1 < count else 0
        directories.append(struct.pack("<Q", len(tags)) + entries + struct.pack("<Q", following))
    with path.open("wb") as file:
        file.write(b"II" + struct.pack("<HHHQ", 43, 8, 0, start))
        file.seek(start)
        file.write(b"".join(directories))
