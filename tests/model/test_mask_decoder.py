"""The mask decoder against Eq. 14 and 17."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from csvi.losses import identity_mask_loss, mask_loss, mask_target
from csvi.model.mask_decoder import DESIGNS, MaskDecoder, full_size
from csvi.model.two_stream import TwoStream

IDENTITY, MODALITY = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 0, 1, 1])


def test_masks_have_a_quarter_of_the_image_size():
    decoder = MaskDecoder(32, stride=16, widths=(8, 4))
    # A 288 x 144 image has 18 x 9 features (stride 16); Eq. 14 has masks of W/4 x H/4.
    assert decoder(torch.randn(2, 32, 18, 9)).shape == (2, 1, 72, 36)
    assert decoder.cell == 4


def test_each_block_is_a_deconvolution_and_two_convolutions():
    decoder = MaskDecoder(32, stride=16, widths=(8, 4), identities=2)
    for block, (channels, width) in zip(decoder, [(32, 8), (8, 4)], strict=False):
        deconvolutions = [layer for layer in block if isinstance(layer, nn.ConvTranspose2d)]
        convolutions = [layer for layer in block if isinstance(layer, nn.Conv2d)]
        assert [(d.in_channels, d.out_channels, d.stride) for d in deconvolutions] == [(channels, width, (2, 2))]
        assert [(c.out_channels, c.kernel_size) for c in convolutions] == [(width, (3, 3))] * 2


def test_convolutions_are_followed_by_batch_norm_and_relu_and_the_last_layer_is_one_by_one():
    *blocks, last = MaskDecoder(32, stride=16, widths=(8, 4), identities=3)
    convolution = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert [[type(layer) for layer in block] for block in blocks] == [[nn.ConvTranspose2d, *2 * convolution]] * 2
    assert (type(last), last.in_channels, last.out_channels, last.kernel_size) == (nn.Conv2d, 4, 1 + 3, (1, 1))


def test_a_block_of_the_lean_design_has_a_convolution_of_one_by_one_a_deconvolution_and_one_convolution():
    decoder = MaskDecoder(32, stride=16, widths=(8, 4), design="lean")
    convolution = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    for block, (channels, width) in zip(decoder, [(32, 8), (8, 4)], strict=False):
        assert [type(layer) for layer in block] == [*convolution, nn.ConvTranspose2d, *convolution]
        narrow, up, last = block[0], block[3], block[4]
        assert (narrow.in_channels, narrow.out_channels, narrow.kernel_size) == (channels, width, (1, 1))
        assert (up.out_channels, up.stride, last.out_channels, last.kernel_size) == (width, (2, 2), width, (3, 3))


def test_the_lean_design_adds_less_than_a_fifth_to_the_arithmetic_of_the_streams():
    """ResNet-50 at 288 x 144: a step of coseg+ is then below 1.3 times the Baseline's. The paper's design adds 0.9."""
    with torch.device("meta"):
        streams, image = TwoStream("resnet50"), torch.empty(1, 3, 288, 144)
        features = streams.shared(streams.visible(image))
        parts = {"streams": (lambda: streams.shared(streams.visible(image)))}
        for design in DESIGNS:
            decoder = MaskDecoder(features.shape[1], streams.stride, design=design)
            parts[design] = lambda decoder=decoder: decoder(features)
    operations = {}
    for name, part in parts.items():
        with FlopCounterMode(display=False) as counter:
            part()
        operations[name] = counter.get_total_flops()
    assert operations["lean"] < 0.2 * operations["streams"] < 0.8 * operations["streams"] < operations["paper"]


@pytest.mark.parametrize("design", DESIGNS)
def test_initial_weights_are_random_as_pytorch_has_them(design):
    """Alike, all channels would learn the same."""
    torch.manual_seed(0)
    for layer in MaskDecoder(512, stride=16, identities=3, design=design).modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            bound = layer.weight[0].numel() ** -0.5  # Kaiming's uniform weights of fan-in, a = sqrt(5)
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.15)


@pytest.mark.parametrize(("design", "widths"), [("paper", [80, 20]), ("lean", [40, 10])])
def test_by_default_there_are_two_blocks_of_a_quarter_and_a_sixteenth_or_half_of_that(design, widths):
    assert [block[0].out_channels for block in list(MaskDecoder(320, 16, design=design))[:-1]] == widths


def test_blocks_that_do_not_divide_the_stride():
    with pytest.raises(ValueError, match=r"^2 blocks give 4 times the resolution, not a divisor of 6$"):
        MaskDecoder(16, stride=6, widths=(8, 4))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("widths", [(8,), (8, 4), (8, 6, 4)])
def test_every_block_halves_the_cell(widths, design):
    decoder = MaskDecoder(16, stride=16, widths=widths, design=design).eval()
    logits = decoder(torch.randn(4, 16, 3, 2))
    assert logits.shape == (4, 1, 48 // decoder.cell, 32 // decoder.cell)
    assert decoder.probability(logits, 48, 32).shape == (4, 1, 48, 32)
    decoder.loss(logits, torch.rand(4, 1, 48, 32), IDENTITY, MODALITY).backward()


@pytest.mark.parametrize("identities", [0, 3])
def test_the_loss_is_eq_17_on_the_decoders_grid(identities):
    torch.manual_seed(0)
    decoder = MaskDecoder(16, 16, (8, 4), identities).double()
    logits = decoder(torch.randn(4, 16, 3, 2, dtype=torch.float64))
    mask = torch.rand(4, 1, 48, 28, dtype=torch.float64)  # 16 does not divide the width
    target = mask_target(mask, 12, 8, cell=4)
    expected = (
        identity_mask_loss(logits, target, IDENTITY, MODALITY) if identities else mask_loss(logits, target, MODALITY)
    )
    torch.testing.assert_close(decoder.loss(logits, mask, IDENTITY, MODALITY), expected)


@pytest.mark.parametrize("identities", [0, 3])
def test_the_probability_is_of_a_person_whoever_it_is(identities):
    torch.manual_seed(0)
    decoder = MaskDecoder(16, 16, (8, 4), identities)
    logits = torch.randn(4, 1 + identities, 12, 8)
    if identities:
        coarse = (logits[:, 1:].exp().sum(1) / logits.exp().sum(1)).unsqueeze(1)
    else:
        coarse = 1 / (1 + (-logits).exp())
    found = decoder.probability(logits, 48, 28)
    assert found.shape == (4, 1, 48, 28)
    torch.testing.assert_close(found, full_size(coarse, 48, 28, 4))
    assert ((found >= 0) & (found <= 1)).all()


def test_the_probability_may_be_that_of_one_identity():
    logits = torch.randn(4, 1 + 3, 12, 8)
    found = MaskDecoder(16, 16, (8, 4), 3).probability(logits, 48, 28, label=1)
    coarse = logits[:, 2:3].exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(found, full_size(coarse, 48, 28, 4))


def test_full_size_undoes_the_targets_grid_where_16_does_not_divide_the_size():
    """A person on the right of an image of 24 pixels, whose decoder has 8 columns of 4: it comes back where it was."""
    mask = torch.zeros(1, 1, 16, 24)
    mask[..., 12:20] = 1
    found = full_size(mask_target(mask, 4, 8, cell=4), 16, 24, cell=4)
    assert torch.equal(found > 0.5, mask > 0.5)
