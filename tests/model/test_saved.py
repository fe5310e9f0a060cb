"""What a run folder holds of a network, and that it comes back the same."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from csvi.errors import CsviError
from csvi.model import build_network
from csvi.model.saved import load_net, load_training_network, save_network


@pytest.fixture
def network(config):
    torch.manual_seed(0)
    network = build_network(config, identities=5).to(memory_format=torch.channels_last)
    network.train()
    for _ in range(3):  # so that running statistics are not the initial ones
        batch = {
            "image": torch.randn(8, 3, 48, 24) + 1,
            "identity": torch.arange(8) % 2,
            "modality": torch.arange(8) // 4,
        }
        network(batch)
    return network.eval()


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.randn(6, 3, 48, 24), torch.tensor([0, 1, 1, 0, 1, 0])


def test_the_auxiliary_is_not_in_the_saved_model(network, tmp_path):
    save_network(network, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == set(network.net.state_dict())
    assert {key.partition(".")[0] for key in saved} == {"backbone", "part_module"}
    assert sum(tensor.numel() for tensor in saved.values()) < sum(t.numel() for t in network.state_dict().values())


def test_saved_model_gives_the_same_embeddings(network, images, tmp_path):
    save_network(network, tmp_path)
    (tmp_path / "auxiliary.safetensors").unlink()  # nothing of it is needed
    loaded = load_net(tmp_path)
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded.to(memory_format=torch.channels_last)(*images), network.net(*images))


def test_saving_leaves_the_network_as_it_is(network, images, tmp_path):
    before = network.net(*images)
    save_network(network, tmp_path)
    assert torch.equal(network.net(*images), before)
    assert network.net.backbone.visible[0][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_config_json_says_how_to_build_it(network, tmp_path):
    save_network(network, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "identities": 5, "backbone": "mobilenet_v2", "parts": 3, "part_dim": 16, "part_norm": True,
        "share_classifier": False, "height": 48, "width": 24, "guide": False,
    }  # fmt: skip


def test_auxiliary_comes_back_for_its_masks(network, images, config, tmp_path):
    save_network(network, tmp_path)
    loaded = load_training_network(tmp_path, config)
    image, modality = images
    identity = torch.tensor([3, 3, 9, 9, 9, 3])

    def masks(network):
        return network.auxiliary.predict_masks(network.net.features(image, modality), identity, modality)

    assert not loaded.training
    torch.testing.assert_close(masks(loaded), masks(network))


def test_network_without_an_auxiliary(config, tmp_path):
    config.model.auxiliary = "none"
    save_network(build_network(config, identities=5), tmp_path)
    assert not (tmp_path / "auxiliary.safetensors").exists()
    assert load_training_network(tmp_path, config).auxiliary is None


def test_folder_without_a_model(tmp_path):
    with pytest.raises(CsviError, match=r"holds no trained model \(model\.safetensors\)"):
        load_net(tmp_path)


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def without_a_tensor(folder):
    saved = load_file(folder / "model.safetensors")
    del saved["part_module.embed.weight"]
    save_file(saved, folder / "model.safetensors")


def of_other_classes(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"identities": 6}))


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        without_a_tensor,
        of_other_classes,
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
    ],
)
def test_damaged_model_is_refused_and_never_half_loaded(network, tmp_path, damage):
    save_network(network, tmp_path)
    damage(tmp_path)
    with pytest.raises(CsviError, match=r"config\.json and model\.safetensors of .* are no network"):
        load_net(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), r"auxiliary\.safetensors is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:100]), r"auxiliary\.safetensors is not the auxiliary"),
        (lambda file: save_file({"a": torch.ones(2)}, file), r"auxiliary\.safetensors is not the auxiliary"),
    ],
)
def test_auxiliary_that_is_missing_or_damaged(network, config, tmp_path, damage, message):
    save_network(network, tmp_path)
    damage(tmp_path / "auxiliary.safetensors")
    with pytest.raises(CsviError, match=message):
        load_training_network(tmp_path, config)
