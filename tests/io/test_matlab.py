"""MATLAB files: movies there and back, transforms in the published convention."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat, savemat

import stackalign as sa
from stackalign.io.errors import StackReadError, StackWriteError, TransformsReadError
from stackalign.io.matlab import from_tau, read_mat, read_tau, to_tau, write_mat


@pytest.fixture
def result():
    stack, _ = sa.simulate(scene="camera", shape=(49, 64), frames=4, model="euclidean", motion="uniform", seed=2)
    stack = sa.ImageStack(stack.asarray())
    return stack, sa.register(stack, sa.Reals())


def test_a_movie_of_matlab_is_read_with_time_first(tmp_path):
    frames = np.arange(3 * 20 * 31, dtype=np.uint16).reshape(3, 20, 31)
    savemat(tmp_path / "movie.mat", {"Y": np.moveaxis(frames, 0, -1), "fps": 10.0})
    assert np.array_equal(read_mat(tmp_path / "movie.mat"), frames)
    stack = sa.read_stack(tmp_path / "movie.mat")
    assert stack.shape == frames.shape
    assert np.array_equal(stack.asarray(), frames)


def test_volumes(tmp_path):
    volumes = np.random.default_rng(0).random((3, 4, 9, 10)).astype(np.float32)  # t, z, y, x
    savemat(tmp_path / "v.mat", {"V": volumes.transpose(2, 3, 1, 0)})
    assert np.array_equal(read_mat(tmp_path / "v.mat"), volumes)


def test_what_is_written_is_what_the_scripts_have(result, tmp_path):
    stack, registration = result
    write_mat(tmp_path / "out.mat", registration, stack)
    held = loadmat(tmp_path / "out.mat")
    assert held["Y"].shape == (49, 64, 4)
    assert held["Y"].dtype == np.uint16
    both = np.isfinite(held["L"]) & np.isfinite(held["L_stat"])
    assert np.allclose(held["L"][both], (held["L_stat"] + held["S"])[both], atol=1e-2)
    back = read_tau(tmp_path / "out.mat", stack.frame_shape)
    assert np.allclose(back.matrices, registration.transforms.matrices, atol=1e-9)


def test_tau_is_what_torch_takes():
    torch = pytest.importorskip("torch")
    # the scene of the frame lies 2 px further down and 5 px to the left: reference pixel (y, x) is at (y + 2, x - 5)
    image = np.random.default_rng(1).random((30, 44)).astype(np.float32)
    frame = np.roll(image, (2, -5), (0, 1))
    tau = to_tau(sa.TransformSeries.from_translations(np.array([[-2.0, 5.0]])), (30, 44))
    theta = torch.as_tensor(np.moveaxis(tau, -1, 0), dtype=torch.float32)
    grid = torch.nn.functional.affine_grid(theta, [1, 1, 30, 44], align_corners=False)
    seen = torch.nn.functional.grid_sample(torch.as_tensor(frame)[None, None], grid, align_corners=False)[0, 0].numpy()
    assert np.allclose(seen[3:-3, 6:-6], image[3:-3, 6:-6], atol=1e-4)


def test_tau_there_and_back_for_volumes():
    matrices = np.tile(np.eye(4), (2, 1, 1))
    matrices[1, :3] += np.random.default_rng(3).normal(0, 0.05, (3, 4))
    series = sa.TransformSeries(matrices, sa.TransformModel.AFFINE)
    assert np.allclose(from_tau(to_tau(series, (7, 20, 30)), (7, 20, 30)).matrices, matrices)


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(StackReadError, match="there is no file"):
        read_mat(tmp_path / "none.mat")
    (tmp_path / "bad.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(StackReadError, match=r"bad\.mat is no MATLAB file"):
        read_mat(tmp_path / "bad.mat")
    savemat(tmp_path / "two.mat", {"A": np.zeros((4, 5, 6)), "B": np.zeros((4, 5, 6))})
    with pytest.raises(StackReadError, match="several movies"):
        read_mat(tmp_path / "two.mat")
    assert read_mat(tmp_path / "two.mat", "B").shape == (6, 4, 5)
    with pytest.raises(StackReadError, match="has no movie 'C'"):
        read_mat(tmp_path / "two.mat", "C")
    with pytest.raises(TransformsReadError, match="no variable 'tau'"):
        read_tau(tmp_path / "two.mat", (4, 5))
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "new.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(512))
    with pytest.raises(StackReadError, match=r"7\.3"):
        read_mat(tmp_path / "new.mat")


def test_too_much_for_one_file(result, tmp_path):
    _, registration = result
    huge = sa.ImageStack(np.broadcast_to(np.uint16(0), (4, 20_000, 20_000)))
    with pytest.raises(StackWriteError, match="2 GB"):
        write_mat(tmp_path / "huge.mat", registration, huge)


def test_projective_motion_has_no_tau():
    series = sa.TransformSeries(np.tile(np.eye(3), (2, 1, 1)), sa.TransformModel.PROJECTIVE)
    with pytest.raises(ValueError, match="affine"):
        to_tau(series, (9, 9))
    with pytest.raises(TransformsReadError, match=r"\(2, 3, t\)"):
        from_tau(np.zeros((3, 3, 2)), (9, 9))
