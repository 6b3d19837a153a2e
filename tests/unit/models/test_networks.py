"""The networks: what they accept, what they return, and how many parameters they have."""

from __future__ import annotations

import pytest
import torch
from test_every_network import with_attention

from medt.errors import UserError
from medt.models import AxialUNet, GatedAxialUNet, LocalGlobalNet, LoGo, MedT, MedTPlus
from medt.models.medt import join_patches, split_patches

NETWORKS = (AxialUNet, GatedAxialUNet, LoGo, MedT, MedTPlus)
# The smallest sizes: 32 px for one branch and for each patch of two.
SMALL = {
    AxialUNet: {"image_size": 32},
    GatedAxialUNet: {"image_size": 32},
    LoGo: {"image_size": 64, "grid": (2, 2)},
    MedT: {"image_size": 64, "grid": (2, 2)},
    MedTPlus: {"image_size": 32},
}
each_network = pytest.mark.parametrize("network", NETWORKS)


def small(network, **arguments):
    torch.manual_seed(0)
    return with_attention(network(**SMALL[network] | arguments))


def image(size, channels=3, n=2):
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, height, width, generator=generator)


def model_size(network):
    return SMALL[network]["image_size"]


def parameters(model):
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("network", "count"),
    [(AxialUNet, 1_326_466), (GatedAxialUNet, 1_326_530), (LoGo, 1_528_970), (MedT, 1_524_298)],
)
def test_parameter_counts_are_the_papers_without_the_unused_ones(network, count):
    assert parameters(network()) == count


@each_network
def test_every_parameter_gets_a_gradient(network):
    model = small(network)
    model(image(model_size(network))).square().mean().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert without == []
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@each_network
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (4, 5)])
def test_channels_and_classes_are_free(network, channels, classes):
    model = small(network, channels=channels, classes=classes)
    size = model_size(network)
    assert model(image(size, channels)).shape == (2, classes, size, size)


@each_network
def test_outputs_are_unbounded_logits_of_each_image_apart(network):
    model = small(network)
    x = 10 * image(model_size(network))
    model(x)
    with torch.no_grad():
        logits = model.eval()(x)
        torch.testing.assert_close(logits[:1], model(x[:1]), rtol=1e-3, atol=1e-4)
    assert logits.min() < 0
    assert not torch.allclose(logits.sum(1), torch.ones(()))


@pytest.mark.parametrize(
    ("network", "size", "arguments"),
    [
        (AxialUNet, (32, 96), {}),
        (GatedAxialUNet, (64, 32), {}),
        (LoGo, (64, 128), {"grid": (2, 4)}),
        (MedT, (128, 64), {"grid": (2, 2)}),
        (MedT, (96, 32), {"grid": (3, 1)}),
        (MedTPlus, (96, 32), {}),
    ],
)
def test_images_need_not_be_square(network, size, arguments):
    model = network(image_size=size, **arguments)
    assert model(image(size)).shape == (2, 2, *size)


@each_network
def test_smaller_images_than_the_image_size_work(network):
    size = model_size(network)
    model = small(network, image_size=2 * size)
    assert model(image(size)).shape == (2, 2, size, size)
    assert model(image((size, 2 * size))).shape == (2, 2, size, 2 * size)


def test_a_larger_image_than_the_image_size_is_an_error():
    with pytest.raises(ValueError, match=r"height of the input is 32.*at most 16"):
        small(AxialUNet)(image(64))


def test_width_factor_scales_the_channels():
    model = small(AxialUNet, width_factor=0.25)
    assert model.head.in_channels == 32
    assert model(image(32)).shape == (2, 2, 32, 32)
    assert 3 < parameters(model) / parameters(small(AxialUNet)) < 4


@pytest.mark.parametrize("depths", [(1, 1), (2, 1, 3), (1, 1, 1, 1)])
def test_depths_set_the_stages_and_their_blocks(depths):
    model = small(AxialUNet, depths=depths)
    assert tuple(len(stage) for stage in model.branch.stages) == depths
    smallest = 2 ** (len(depths) + 1)
    assert model(image(smallest)).shape == (2, 2, smallest, smallest)


@pytest.mark.parametrize(("over_all", "local"), [((1,), (1, 1)), ((1, 1, 2), (2, 1, 1))])
def test_depths_of_both_branches_are_free(over_all, local):
    model = small(MedT, global_depths=over_all, local_depths=local)
    assert tuple(len(stage) for stage in model.branch.stages) == over_all
    assert tuple(len(stage) for stage in model.local_branch.stages) == local
    assert model(image(64)).shape == (2, 2, 64, 64)


@each_network
def test_heads_are_free(network):
    model = small(network, heads=4)
    assert {layer.heads for layer in attention(model)} == {4}
    assert model(image(model_size(network))).isfinite().all()


def attention(model):
    return [layer for layer in model.modules() if hasattr(layer, "similarity_norm")]


@pytest.mark.parametrize(
    ("network", "everywhere", "local"),
    [
        (AxialUNet, "plain", None),
        (GatedAxialUNet, "gated", None),
        (LoGo, "plain", "plain"),
        (MedT, "gated", "none"),
        (LocalGlobalNet, "gated", "none"),
    ],
)
def test_positions_are_those_of_the_paper(network, everywhere, local):
    model = network()
    assert {layer.position for layer in attention(model.branch)} == {everywhere}
    if local:
        assert {layer.position for layer in attention(model.local_branch)} == {local}


def test_positions_and_gate_order_are_free():
    model = small(LoGo, global_position="none", local_position="gated", gate="after_norm")
    assert {layer.position for layer in attention(model.branch)} == {"none"}
    assert {layer.position for layer in attention(model.local_branch)} == {"gated"}
    model = small(GatedAxialUNet, gate="after_norm", position="plain")
    assert {(layer.gate, layer.position) for layer in attention(model)} == {("after_norm", "plain")}


class TestSizesThatDoNotFit:
    @pytest.mark.parametrize(
        ("network", "size", "nearest"),
        [
            (AxialUNet, 100, "96 x 96 or 128 x 128"),
            (AxialUNet, 20, "32 x 32"),
            (GatedAxialUNet, (64, 100), "64 x 96 or 64 x 128"),
            (MedT, 200, "128 x 128 or 256 x 256"),
            (LoGo, (128, 100), "128 x 128"),
        ],
    )
    def test_are_refused_by_naming_the_nearest_that_do(self, network, size, nearest):
        with pytest.raises(UserError, match=f"does not fit {network.__name__}") as error:
            network(image_size=size)
        assert error.value.hint.endswith(f": {nearest}")

    @pytest.mark.parametrize(
        ("network", "size", "nearest"),
        [(AxialUNet, (32, 33), "32 x 32 or 32 x 64"), (MedT, (96, 64), "64 x 64 or 128 x 64")],
    )
    def test_are_refused_in_forward_as_well(self, network, size, nearest):
        with pytest.raises(UserError, match=f"image size {size[0]} x {size[1]}") as error:
            small(network)(image(size))
        assert error.value.hint.endswith(f": {nearest}")

    def test_the_multiples_follow_grid_and_depths(self):
        assert MedT().multiples == (128, 128)
        assert MedT(image_size=(64, 96), grid=(2, 3)).multiples == (64, 96)
        assert AxialUNet(depths=(1, 1)).multiples == (8, 8)

    @pytest.mark.parametrize("size", [0, -32, "128", (32,), (32, 32, 32), (32.0, 32), True])
    def test_what_is_no_size_is_refused(self, size):
        with pytest.raises(UserError, match="is not a size in pixels"):
            AxialUNet(image_size=size)


class TestPatches:
    def test_are_cut_in_row_major_order(self):
        x = image((8, 9))
        patches = split_patches(x, (4, 3))
        assert patches.shape == (2 * 12, 3, 2, 3)
        for n in range(2):
            for row in range(4):
                for column in range(3):
                    patch = x[n, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
                    assert torch.equal(patches[n * 12 + row * 3 + column], patch)

    @pytest.mark.parametrize("grid", [(1, 1), (4, 4), (2, 4), (8, 1)])
    def test_joining_is_the_inverse_of_splitting(self, grid):
        x = image((8, 16))
        assert torch.equal(join_patches(split_patches(x, grid), grid), x)

    def test_the_local_branch_sees_the_patches_of_all_images_as_one_batch(self):
        model = MedT(local_depths=(1, 1))
        seen = []
        model.local_branch.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        x = image(128)
        model(x)
        (batch,) = seen
        assert torch.equal(batch, split_patches(x, (4, 4)))
        assert len(batch) == 2 * 16
