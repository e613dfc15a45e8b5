"""Each network: its size, its gradients, that it learns, and that it says what it cannot do."""

import numpy as np
import pytest
from skimage import data

from stackalign.core.deep.pairs import SyntheticPairs

torch = pytest.importorskip("torch")

from stackalign.core.deep.homography import homography_from_corners, template_corners, warp  # noqa: E402
from stackalign.core.deep.networks import NETWORKS, build, network_class  # noqa: E402
from stackalign.core.deep.networks.base import Batch, corner_distance, count_parameters, resting_corners  # noqa: E402
from stackalign.core.deep.networks.lucas_kanade import lucas_kanade  # noqa: E402

SMALL = {
    "features": {"widths": (4, 8, 12, 16), "coarse": 8, "fine": 8},
    "dhn": {"widths": (8, 8, 16, 16), "hidden": 64},
    "mhn": {"widths": (8, 8, 16, 16), "hidden": 32},
    "clkn": {"width": 4, "channels": 2, "iterations": 3},
    "dlkfm": {"width": 4, "iterations": 4},
    "embedding-corners": {"width": 4, "features": 2, "widths": (8, 16, 16), "hidden": 32, "first_stage": 3},
    "embedding-matrix": {"width": 4, "features": 2, "widths": (8, 16, 16), "hidden": 32, "first_stage": 3},
    "description": {"widths": (4, 8, 8, 8), "added": 2},
}
REGRESSING = sorted(name for name in NETWORKS if network_class(name).gives == "corners")


@pytest.fixture(scope="module")
def batch():
    recipe = SyntheticPairs(size=64, template=40, reach=12, inverted=True, zoom=(1, 2), seed=1)
    return Batch.of([recipe.pair([data.astronaut(), data.coffee()], k) for k in range(4)])


def made(name):
    torch.manual_seed(0)
    return build(name, SMALL[name])


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_it_learns_one_batch_by_heart(name, batch):
    network = made(name)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(12):
        torch.manual_seed(step % 2)
        loss, said = network.loss(batch)
        assert torch.isfinite(loss)
        assert all(np.isfinite(v) for v in said.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    start = SMALL[name].get("first_stage", 0)
    assert min(losses[-2:]) < losses[start]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_weight_gets_a_gradient(name, batch):
    network = made(name)
    for _ in range(2 * SMALL[name].get("first_stage", 0) or 1):
        network.loss(batch)[0].backward()
    with_none = [key for key, p in network.named_parameters() if p.grad is None]
    assert not with_none


@pytest.mark.parametrize("name", REGRESSING)
def test_corners_of_any_size(name, batch):
    network = made(name).eval()
    with torch.no_grad():
        for size, template in (((64, 64), (40, 40)), ((96, 120), (56, 64)), ((64, 64), (64, 64))):
            corners = network.corners(torch.rand(2, 1, *size), torch.rand(2, 1, *template))
            assert corners.shape == (2, 4, 2)
            assert torch.isfinite(corners).all()


@pytest.mark.parametrize("name", ["dhn", "embedding-corners", "embedding-matrix"])
def test_a_regressed_corner_stays_in_its_square(name, batch):
    network = made(name)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.mul_(50)
        apart = network.eval().corners(batch.reference, batch.moving) - resting_corners(batch.reference, batch.moving)
    assert apart.abs().max() <= 12


def test_published_sizes_are_those_of_the_docstrings():
    counts = {name: count_parameters(build(name)) / 1e6 for name in NETWORKS}
    expected = {
        "features": 0.34,
        "dhn": 9,
        "mhn": 1.3,
        "clkn": 0.07,
        "dlkfm": 0.14,
        "embedding-corners": 2.5,
        "description": 0.14,
    }
    for name, millions in expected.items():
        assert counts[name] == pytest.approx(millions, rel=0.15), name
    assert counts["embedding-matrix"] == counts["embedding-corners"]


def test_every_network_names_its_paper():
    for name in NETWORKS:
        cls = network_class(name)
        assert cls.paper
        assert "parameters" in cls.__doc__


def test_lucas_kanade_converges_and_its_steps_carry_gradients(batch):
    here = template_corners(40, 40)
    smooth = torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(batch.reference, (4, 4, 4, 4), mode="replicate"), 9, 1
    )
    moving, _ = warp(smooth, batch.matrix, (40, 40))
    start = homography_from_corners(
        here, batch.corners + torch.tensor([[1.5, -1.0], [0.5, 1.0], [-1.0, 0.5], [1.0, 1.0]])
    )
    moving.requires_grad_()
    found = lucas_kanade(smooth, moving, start, iterations=15, damping=1e-3)
    from stackalign.core.deep.homography import corners_from_homography

    apart = corner_distance(corners_from_homography(found, 40, 40), batch.corners)
    assert apart.max() < 0.1
    apart.sum().backward()
    assert torch.isfinite(moving.grad).all()
    assert moving.grad.abs().sum() > 0


def test_features_move_with_the_image(batch):
    network = made("features").eval()
    image = torch.nn.functional.interpolate(batch.reference[:1], scale_factor=2, mode="bilinear")
    with torch.no_grad():
        coarse, fine = network(image[:, :, :80, :96])
        assert coarse.shape[-2:] == (20, 24)
        assert fine.shape[-2:] == (40, 48)
        odd_coarse, odd_fine = network(image[:, :, :77, :91])
        assert odd_coarse.shape[-2:] == (20, 23)
        assert odd_fine.shape[-2:] == (39, 46)
    lengths = torch.linalg.vector_norm(fine, dim=1)
    assert lengths.min() >= 0.049
    assert lengths.max() <= 1.001


def test_an_untrained_description_is_the_training_free_one():
    from stackalign.core.deep.inference import described
    from stackalign.core.multimodal.features import describe

    image = data.camera()[60:151, 70:170].astype(np.float32)
    image[20:31, 40:60] = np.nan
    network = made("description")
    plain, learnt = describe(image), described(network, image)
    np.testing.assert_array_equal(learnt.weight, plain.weight)
    inside = plain.weight > 0
    np.testing.assert_allclose(learnt.values[inside][:, :11], plain.values[inside], atol=1e-5)
    assert np.abs(learnt.values[inside][:, 11:]).mean() < 0.2
    torch.nn.init.normal_(network.head.weight, std=0.1)
    changed, negative = described(network, image), described(network, -image)
    assert np.abs(changed.values - learnt.values).max() > 0.1
    np.testing.assert_allclose(negative.values, changed.values, atol=1e-4)


def test_unknown_names_and_options_are_named():
    with pytest.raises(ValueError, match="choose features, dhn"):
        build("vgg")
    with pytest.raises(ValueError, match="does not take"):
        build("dhn", {"depth": 3})
