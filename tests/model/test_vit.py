"""The vision transformer against PMT's, its weights against timm's names, and networks of timm."""

import copy
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import StochasticDepth

from csvi.errors import CsviError
from csvi.model.neck import BNNeck, Classifier
from csvi.model.vit import Block, VisionTransformer, build_vit, resized_positions

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_the_field.json").read_text())


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def small(height=40, width=28, **options):
    """A transformer with 3x2 patches and two blocks."""
    torch.manual_seed(0)
    return VisionTransformer(height, width, **{"dim": 12, "depth": 2, "heads": 3, **options}).double()


def images(batch=2, height=40, width=28):
    return torch.randn(batch, 3, height, width, dtype=torch.float64)


def test_a_block_is_pmts():
    golden = GOLDENS["PMT"]["vit_block_8_dims_2_heads"]
    block = Block(8, 2).double().eval()
    block.load_state_dict({name: tensor(values) for name, values in golden["parameters"].items()})
    torch.testing.assert_close(block(tensor(golden["input"])), tensor(golden["output"]), rtol=0, atol=1e-8)


def test_position_embeddings_are_resized_as_pmts():
    golden = GOLDENS["PMT"]["resize_pos_embed_3x3_to_4x2"]
    found = resized_positions(tensor(golden["input"]), (3, 3), (4, 2))
    torch.testing.assert_close(found, tensor(golden["output"]), rtol=0, atol=1e-8)


def test_the_network_is_pmts():
    golden = GOLDENS["PMT_network"]
    with torch.device("meta"):
        net = build_vit("vit_base", 256, 128)
        parts = nn.ModuleList([net, BNNeck(net.channels), Classifier(net.channels, 395)])
    assert sum(p.numel() for p in parts.parameters()) + 768 == GOLDENS["counts"]["PMT"]  # PMT counts the neck's bias
    assert list(net.grid) == golden["patches_rows_columns"]
    assert list(net.pos_embed.shape) == golden["pos_embed"]
    assert [block.drop_path.p for block in net.blocks] == pytest.approx(golden["drop_path_rates"], abs=1e-7)
    assert {layer.eps for layer in net.modules() if isinstance(layer, nn.LayerNorm)} == {golden["layernorm_eps"]}
    drops = [layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)]
    assert drops == [0.03] * (1 + 3 * 12)
    assert net(torch.empty(2, 3, 256, 128, device="meta")).shape == (2, 768)


def test_the_feature_is_the_class_token_behind_the_last_norm():
    net, image = small().eval(), images()
    patches = net.patch_embed.proj(image)  # (2, 12, 3, 2)
    rows = [patches[:, :, row, column] for row in range(3) for column in range(2)]
    tokens = torch.stack([net.cls_token[0].expand(2, -1), *rows], 1) + net.pos_embed
    for block in net.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(net(image), net.norm(tokens[:, 0]))


def test_training_drops_and_evaluation_does_not():
    net, image = small(), images()
    assert not torch.equal(net(image), net(image))
    assert torch.equal(net.eval()(image), net(image))
    still = small(dropout=0, drop_path=0)
    torch.testing.assert_close(still(image), still.eval()(image))


def test_stochastic_depth_lets_whole_images_skip():
    torch.manual_seed(0)
    block = Block(12, 3, drop_path=0.5).double()
    assert isinstance(block.drop_path, StochasticDepth)
    tokens = torch.randn(1, 5, 12, dtype=torch.float64).expand(64, -1, -1)
    kinds = {tuple(image.flatten().tolist()) for image in block(tokens).round(decimals=8)}
    assert len(kinds) == 4  # with or without the attention, with or without the MLP


def test_every_parameter_learns():
    net = small()
    net(images()).square().sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 28), (41, 30)])
def test_any_image_size_is_embedded(height, width):
    net = small().eval()
    assert net(images(2, height, width)).shape == (2, 12)
    assert small(height, width)(images(2, height, width)).shape == (2, 12)


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(CsviError, match="images of 40x12 have no patch of 16 by 16"):
        small(40, 12)


def test_it_can_be_copied_and_computes_the_same_in_channels_last_and_nearly_so_in_bfloat16():
    net, image = small().eval(), images()
    expected = net(image)
    assert torch.equal(copy.deepcopy(net)(image), expected)
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(image), expected)
    net = small().float().eval()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = net(image.float())
    torch.testing.assert_close(narrow.double(), expected, rtol=0.05, atol=0.05)


def test_it_is_exported_with_any_batch():
    net = small(depth=1).eval()
    program = torch.export.export(net, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    others = images(5)
    torch.testing.assert_close(program.module()(others), net(others))


# Weights


def of_timm(dim=12, depth=2, patches=16):
    """A state dict with the names and shapes of timm's vit_base_patch16_224, but small."""
    names = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + patches, dim), "patch_embed.proj.weight": (dim, 3, 16, 16)}
    layers = {"patch_embed.proj": None, "norm": dim, "head": 10}
    for block in range(depth):
        layers |= {f"blocks.{block}.{name}": dim for name in ("norm1", "norm2")}
        for name, wide, into in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            names[f"blocks.{block}.{name}.weight"] = wide * dim, into * dim
            names[f"blocks.{block}.{name}.bias"] = (wide * dim,)
    for layer, rows in layers.items():
        names.setdefault(f"{layer}.weight", (10, dim) if layer == "head" else (dim,))
        names[f"{layer}.bias"] = (rows or dim,)
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in names.items()}


def test_weights_of_timm_are_loaded_and_position_embeddings_resized():
    net, state = small(), of_timm()
    net.load_pretrained(state)
    positions = state["pos_embed"]
    grid = positions[:, 1:].view(1, 4, 4, 12).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, (3, 2), mode="bilinear").permute(0, 2, 3, 1).reshape(1, 6, 12)
    torch.testing.assert_close(net.pos_embed[:, 1:], expected)
    torch.testing.assert_close(net.pos_embed[:, 0], positions[:, 0])
    for name, parameter in net.named_parameters():
        assert name == "pos_embed" or torch.equal(parameter, state[name]), name


def test_weights_of_torchvision_make_its_network():
    """With its stride and epsilon."""
    theirs = torchvision.models.VisionTransformer(32, 16, 2, 3, 12, 48, num_classes=7).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = small(32, 32, stride=16).eval()
    ours.load_pretrained(theirs.state_dict())
    for layer in ours.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-6
    image = images(2, 32, 32)
    torch.testing.assert_close(theirs.heads(ours(image)), theirs(image))


def test_position_embeddings_of_the_same_grid_stay():
    net, state = small(), of_timm(patches=6)
    net.load_pretrained(state)
    assert torch.equal(net.pos_embed, state["pos_embed"])
    net = small(52, 112)  # 4 x 9 patches, as many as 6 x 6
    before = net.pos_embed.detach().clone()
    net.load_pretrained(net.state_dict())
    assert torch.equal(net.pos_embed, before)


BROKEN = {
    "missing": (lambda state: state.pop("blocks.1.mlp.fc2.bias"), r"blocks.1.mlp.fc2.bias is missing.* shape \(12,\)"),
    "another shape": (lambda state: state.update({"norm.weight": torch.ones(5)}), r"norm.weight is of shape \(5,\)"),
    "a third block": (lambda state: state.update(of_timm(depth=3)), r"blocks.2.\S+ is of shape .* missing"),
    "another grid": (lambda state: state.update(of_timm(patches=5)), r"pos_embed is of shape \(1, 6, 12\)"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_weights_that_do_not_fit_are_refused_in_one_sentence_and_change_nothing(how):
    net, state = small(), of_timm()
    change, sentence = BROKEN[how]
    change(state)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(CsviError, match=sentence):
        net.load_pretrained(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


# By name


@pytest.mark.parametrize(("name", "channels"), [("vit_base", 768), ("vit_small", 384), ("vit_tiny", 192)])
def test_all_sizes_have_twelve_blocks_with_heads_of_64(name, channels):
    with torch.device("meta"):
        net = build_vit(name, 64, 32)
    assert net.channels == channels
    assert len(net.blocks) == 12
    assert channels // net.blocks[0].attn.heads == 64


def test_an_unknown_name_names_the_known_ones():
    with pytest.raises(CsviError, match=r"unknown transformer 'vit_huge'; .*vit_base.*timm:NAME"):
        build_vit("vit_huge", 64, 32)


def test_timm_that_is_not_installed_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CsviError, match=r"timm:resnet18 needs timm: pip install 'csvi\[timm\]'"):
        build_vit("timm:resnet18", 64, 32)


@pytest.fixture
def fake_timm(monkeypatch):
    """What csvi asks of timm, with one network, bound to an image size."""

    def create_model(name, num_classes, img_size):
        if min(img_size) < 8:
            raise AssertionError("too\nsmall")
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * math.prod(img_size), 5))
        network.head_hidden_size = 5
        return network

    about = SimpleNamespace(fixed_input_size=True, classifier="head")
    known = SimpleNamespace(
        __version__="1.0", is_model=lambda name: name == "plain", get_pretrained_cfg=lambda name: about,
        create_model=create_model,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", known)


def test_a_network_of_timm_is_built_for_the_image_size_and_filled(fake_timm):
    net = build_vit("timm:plain", 16, 8)
    state = {"1.weight": torch.ones(5, 384), "1.bias": torch.zeros(5)}
    net.load_pretrained(state | {"head.weight": torch.ones(10, 5)})
    assert net.channels == 5
    torch.testing.assert_close(net(torch.ones(2, 3, 16, 8)), torch.full((2, 5), 384.0))
    with pytest.raises(CsviError, match=r"1.bias is missing"):
        net.load_pretrained({"1.weight": torch.ones(5, 384)})


def test_what_timm_cannot_build_is_one_sentence(fake_timm):
    with pytest.raises(CsviError, match=r"timm 1.0 has no network 'other'"):
        build_vit("timm:other", 16, 8)
    with pytest.raises(CsviError, match="timm cannot build plain for 4x4: too small"):
        build_vit("timm:plain", 4, 4)


def test_our_transformer_is_timms():
    """Where timm is installed; with its stride and epsilon."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=7).double().eval()
    ours = small(64, 64, dim=192, stride=16).eval()
    ours.load_pretrained(theirs.state_dict())
    for layer in ours.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-6
    image = images(2, 64, 64)
    torch.testing.assert_close(ours(image), theirs.forward_features(image)[:, 0])
    small_one = build_vit("timm:vit_tiny_patch16_224", 64, 32)
    assert small_one(image[:, :, :, :32].float()).shape == (2, small_one.channels)
