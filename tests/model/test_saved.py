"""What a run folder holds of a network, and that it comes back the same."""

import json
import logging
import os
import resource
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
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


def test_sizes_that_config_json_makes_up_take_no_memory(network, tmp_path):
    save_network(network, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for identities in (10**8, 10**15):  # 19 GB of classifiers; more than there is anywhere
        (tmp_path / "config.json").write_text(json.dumps(settings | {"identities": identities}))
        with pytest.raises(CsviError, match=r"config\.json and model\.safetensors of .* are no network"):
            load_net(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18  # KiB


def test_weights_of_half_the_length_are_embedded_with_in_float32(network, tmp_path):
    save_network(network, tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: t.half() if t.is_floating_point() else t for name, t in load_file(file).items()}, file)
    assert {parameter.dtype for parameter in load_net(tmp_path).parameters()} == {torch.float32}


def test_a_full_disk_leaves_the_files_before_and_nothing_else(network, tmp_path, monkeypatch):
    save_network(network, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def save(model, file):
        Path(file).write_bytes(b"half")
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("csvi.model.saved.save_model", save)
    with torch.no_grad():
        network.net.part_module.embed.bias += 1
    with pytest.raises(CsviError, match=r"cannot write the network to .*: No space left on device"):
        save_network(network, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_whoever_may_read_new_files_may_use_the_network(network, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        save_network(network, tmp_path)
    finally:
        os.umask(before)
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == dict.fromkeys(
        ("auxiliary.safetensors", "config.json", "model.safetensors"), mode
    )


def test_what_a_killed_process_left_is_written_over(network, tmp_path):
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "model.safetensors").write_bytes(b"half")
    save_network(network, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"auxiliary.safetensors", "config.json", "model.safetensors"}
    load_net(tmp_path)


@pytest.fixture
def hub(network, tmp_path, monkeypatch):
    """A stand-in for the Hub with one model; returns what was asked of it."""
    commit = tmp_path / "0123abc"
    commit.mkdir()
    save_network(network, commit)
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision))
        assert allow_patterns == ["config.json", "model.safetensors"]
        if name != "owner/name":
            raise OSError("404")
        return str(commit)

    monkeypatch.setattr("csvi.model.saved.snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize(("model", "revision"), [("owner/name", None), ("owner/name@v1.0", "v1.0")])
def test_a_model_of_the_hub_is_pinned_and_its_commit_logged(hub, network, images, caplog, model, revision):
    with caplog.at_level(logging.INFO), torch.inference_mode():
        assert torch.allclose(load_net(model)(*images), network.net(*images), atol=1e-6)
    assert hub == [("owner/name", revision)]
    assert f"{model} is commit 0123abc" in caplog.text


def test_no_model_of_the_hub(hub):
    with pytest.raises(CsviError, match="owner/nothing is neither a run folder nor a model of the Hub: 404"):
        load_net("owner/nothing")


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
