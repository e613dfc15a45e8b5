"""OME images spread over several files, and files that describe several images, as microscopes write them."""

import numpy as np
import pytest
import tifffile

from stackalign.io.errors import StackWriteError
from stackalign.io.read import read_stack
from stackalign.io.write import write_stack


def write_set(folder, images, files):
    """Write OME files that all describe all images; ``images[i]`` is (t, y, x), ``files[f]`` lists its (image, t)."""

    def description(own):
        parts = []
        for i, image in enumerate(images):
            where = [
                f'<TiffData FirstT="{t}" IFD="{pages.index((i, t))}" PlaneCount="1">'
                f'<UUID FileName="p{f}.ome.tif">urn:uuid:{f:08d}-0000-0000-0000-000000000000</UUID></TiffData>'
                for t in range(len(image))
                for f, pages in enumerate(files)
                if (i, t) in pages
            ]
            parts.append(
                f'<Image ID="Image:{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYCZT" Type="uint16"'
                f' SizeX="{image.shape[2]}" SizeY="{image.shape[1]}" SizeC="1" SizeZ="1" SizeT="{len(image)}">'
                f'<Channel ID="Channel:{i}:0" SamplesPerPixel="1"/>{"".join(where)}</Pixels></Image>'
            )
        return (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
            f' UUID="urn:uuid:{own:08d}-0000-0000-0000-000000000000">{"".join(parts)}</OME>'
        )

    for f, pages in enumerate(files):
        with tifffile.TiffWriter(folder / f"p{f}.ome.tif") as tif:
            for k, (i, t) in enumerate(pages):
                text = description(f) if k == 0 else None
                tif.write(images[i][t], description=text, metadata=None, contiguous=False)


@pytest.fixture
def split(tmp_path, movie):
    """A movie of 6 frames over the three files p0, p1 and p2."""
    write_set(tmp_path, [movie], [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4), (0, 5)]])
    return tmp_path


def test_any_file_of_a_set_opens_all_of_it(split, movie):
    for k in range(3):
        stack = read_stack(split / f"p{k}.ome.tif")
        assert np.array_equal(stack.asarray(), movie)
        assert dict(stack.missing) == {}


def test_the_folder_of_a_set_is_the_set_once(split, movie):
    stack = read_stack(split)
    assert np.array_equal(stack.asarray(), movie)
    assert stack.name == split.name
    assert np.array_equal(read_stack(split / "*.ome.tif").asarray(), movie)


def test_a_lost_file_of_a_set_is_missing_frames(split, movie):
    (split / "p1.ome.tif").unlink()
    for stack in (read_stack(split / "p0.ome.tif"), read_stack(split)):
        assert sorted(stack.missing) == [2, 3]
        assert "a part of the set is missing" in stack.missing[2]
        assert np.array_equal(stack[4], movie[4])
        assert not stack[3].any()


def test_no_file_of_a_set_is_overwritten_by_itself(split, movie):
    with pytest.raises(StackWriteError, match="being read from this very file"):
        write_stack(split / "p2.ome.tif", read_stack(split / "p0.ome.tif"))
    assert np.array_equal(read_stack(split).asarray(), movie)


def test_each_file_gives_its_own_image_though_all_describe_all(tmp_path, movie):
    positions = [movie, movie[::-1] + 1]
    write_set(tmp_path, positions, [[(0, t) for t in range(6)], [(1, t) for t in range(6)]])
    for k, position in enumerate(positions):
        stack = read_stack(tmp_path / f"p{k}.ome.tif")
        assert np.array_equal(stack.asarray(), position)
        assert f"the file holds 2 images: number {k + 1} is read" in stack.metadata["notes"]
