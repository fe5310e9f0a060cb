"""What a run folder holds of a network, and that it comes back the same."""

import json
import logging
import os
import resource
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.methods import build_method
from csvi.model.net import EmbeddingNet
from csvi.runs.network_files import has_method, load_method, load_net, read_classes, save_method
from csvi.runs.settings import as_method


@pytest.fixture
def method(config):
    torch.manual_seed(0)
    method = build_method(config, identities=5).to(memory_format=torch.channels_last)
    method.train()
    for _ in range(3):  # so that running statistics are not the initial ones
        image, mask = torch.randn(8, 3, 48, 24) + 1, torch.rand(8, 1, 48, 24)
        method(Batch(image, torch.arange(8) // 4, torch.arange(8) % 2, mask), 0)
    return method.eval()


CLASSES = [3, 5, 8, 13, 21]


@pytest.fixture
def saved(method, tmp_path):
    """The folder with the files of the method."""
    save_method(method, CLASSES, tmp_path)
    return tmp_path


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.randn(6, 3, 48, 24), torch.tensor([0, 1, 1, 0, 1, 0])


def test_what_only_trains_is_not_in_the_saved_model(method, saved):
    model, added = load_file(saved / "model.safetensors"), load_file(saved / "method.safetensors")
    assert set(model) == set(method.net.state_dict())
    assert {key.partition(".")[0] for key in model} == {"backbone", "head"}
    assert {key.partition(".")[0] for key in added} == {"ccwg", "decoder", "head"}
    assert {f"net.{key}" for key in model} | set(added) == set(method.state_dict())  # and together they are all


def test_saved_model_gives_the_same_embeddings(method, images, saved):
    (saved / "method.safetensors").unlink()  # nothing of it is needed
    assert not has_method(saved)
    loaded = load_net(saved)
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded.to(memory_format=torch.channels_last)(*images), method.net(*images))


def test_saving_leaves_the_method_as_it_is(method, images, tmp_path):
    before = method.net(*images)
    save_method(method, CLASSES, tmp_path)
    assert torch.equal(method.net(*images), before)
    assert method.net.backbone.visible[0][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_config_json_says_how_to_build_it(saved):
    assert json.loads((saved / "config.json").read_text()) == {
        "method": "coseg", "identities": 5, "backbone": "mobilenet_v2", "parts": 3, "part_dim": 16, "part_norm": True,
        "share_classifier": False, "height": 48, "width": 24,
    }  # fmt: skip


def test_the_whole_method_comes_back_for_its_masks(method, images, config, saved):
    loaded, classes = load_method(saved, config, load_net(saved))
    image, modality = images
    batch = Batch(image, modality, torch.tensor([3, 3, 9, 9, 9, 3]))
    assert not loaded.training
    assert has_method(saved)
    assert classes == CLASSES == read_classes(saved)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.predict_masks(batch), method.predict_masks(batch))


def test_a_method_that_adds_nothing_has_its_classes_all_the_same(config, tmp_path):
    config.method = as_method(config.method, "baseline")
    save_method(build_method(config, identities=5), CLASSES, tmp_path)
    assert load_file(tmp_path / "method.safetensors") == {}
    loaded, classes = load_method(tmp_path, config, load_net(tmp_path))
    assert (classes, loaded.predicts_masks) == (CLASSES, False)


def test_folder_without_a_model(tmp_path):
    with pytest.raises(CsviError, match=r"holds no trained model \(model\.safetensors\)"):
        load_net(tmp_path)


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def without_a_tensor(folder):
    saved = load_file(folder / "model.safetensors")
    del saved["head.embed.weight"]
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
def test_damaged_model_is_refused_and_never_half_loaded(saved, damage):
    damage(saved)
    with pytest.raises(CsviError, match=r"config\.json and model\.safetensors of .* are no network"):
        load_net(saved)


@pytest.mark.parametrize("name", ["nothing", "", "os:path", "csvi.model.net:PartNet", 3, None])
def test_a_config_json_of_no_method_is_one_sentence(saved, name):
    settings = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(settings | {"method": name}))
    with pytest.raises(CsviError, match="method"):
        load_net(saved)


@pytest.mark.usefixtures("saved")
def test_sizes_that_config_json_makes_up_take_no_memory(tmp_path):
    settings = json.loads((tmp_path / "config.json").read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for identities in (10**8, 10**15):  # 19 GB of classifiers; more than there is anywhere
        (tmp_path / "config.json").write_text(json.dumps(settings | {"identities": identities}))
        with pytest.raises(CsviError, match=r"config\.json and model\.safetensors of .* are no network"):
            load_net(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18  # KiB


class ScaledNet(EmbeddingNet):
    """A network with a buffer that no file holds, as some of timm's have."""

    def __init__(self, method, height, width, dim):
        super().__init__(method, height, width)
        self.linear = nn.Linear(3, dim)
        self.register_buffer("scale", torch.linspace(1, 2, dim), persistent=False)


def test_buffers_that_no_file_holds_are_those_that_the_network_is_built_with(tmp_path, monkeypatch):
    monkeypatch.setattr("csvi.runs.network_files.find_method", lambda name: SimpleNamespace(Net=ScaledNet))
    net = ScaledNet("scaled", 8, 8, dim=4)
    net.save_pretrained(tmp_path)
    loaded = load_net(tmp_path)
    assert torch.equal(loaded.scale, net.scale)
    assert torch.equal(loaded.linear.weight, net.linear.weight)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"dim": 10**15}))  # more memory than there is
    with pytest.raises(CsviError, match=r"are no network: .*size mismatch"):
        load_net(tmp_path)


@pytest.mark.usefixtures("saved")
def test_weights_of_half_the_length_are_embedded_with_in_float32(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({name: t.half() if t.is_floating_point() else t for name, t in load_file(file).items()}, file)
    assert {parameter.dtype for parameter in load_net(tmp_path).parameters()} == {torch.float32}


@pytest.mark.usefixtures("saved")
def test_a_full_disk_leaves_the_files_before_and_nothing_else(method, tmp_path, monkeypatch):
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def save(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("csvi.runs.network_files.save_file", save)
    with torch.no_grad():
        method.net.head.embed.bias += 1
    with pytest.raises(CsviError, match=r"cannot write the network to .*: No space left on device"):
        save_method(method, CLASSES, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_whoever_may_read_new_files_may_use_the_network(method, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        save_method(method, CLASSES, tmp_path)
    finally:
        os.umask(before)
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == dict.fromkeys(
        ("config.json", "method.safetensors", "model.safetensors"), mode
    )


def test_what_a_killed_process_left_is_written_over(method, tmp_path):
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "model.safetensors").write_bytes(b"half")
    save_method(method, CLASSES, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "method.safetensors", "model.safetensors"}
    load_net(tmp_path)


@pytest.fixture
def hub(method, tmp_path, monkeypatch):
    """A stand-in for the Hub with one model; returns what was asked of it."""
    commit = tmp_path / "0123abc"
    commit.mkdir()
    save_method(method, CLASSES, commit)
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision))
        assert allow_patterns == ["config.json", "model.safetensors"]
        if name != "owner/name":
            raise OSError("404 of f.json\nPlease check. Your network.")
        return str(commit)

    monkeypatch.setattr("csvi.runs.network_files.snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize(("model", "revision"), [("owner/name", None), ("owner/name@v1.0", "v1.0")])
def test_a_model_of_the_hub_is_pinned_and_its_commit_logged(hub, method, images, caplog, model, revision):
    with caplog.at_level(logging.INFO), torch.inference_mode():
        assert torch.allclose(load_net(model)(*images), method.net(*images), atol=1e-6)
    assert hub == [("owner/name", revision)]
    assert f"{model} is commit 0123abc" in caplog.text


def test_no_model_of_the_hub(hub):
    words = "there is no folder owner/nothing here, and no such model comes from the Hub: 404 of f.json$"
    with pytest.raises(CsviError, match=words):
        load_net("owner/nothing")
    assert len(hub) == 1


@pytest.mark.parametrize("name", ["nope", "runs/people/typo", "../typo", "./typo", "/typo"])
def test_what_cannot_be_a_model_of_the_hub_is_not_asked_for_there(hub, name):
    with pytest.raises(CsviError, match=f"there is no folder {name}: give a run folder"):
        load_net(name)
    assert hub == []


def test_a_file_is_no_folder_and_not_asked_for_on_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/weights").touch()
    with pytest.raises(CsviError, match="runs/weights is a file: give the folder of a run or a model"):
        load_net("runs/weights")
    assert hub == []


@pytest.mark.parametrize("name", ["one_colour:OneColourMethod", "os:system", "cosegment"])
def test_a_model_of_the_hub_that_names_other_code_is_refused(hub, tmp_path, name):
    file = tmp_path / "0123abc" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"method": name}))
    with pytest.raises(CsviError, match=f"owner/name is of the method {name}, which is not one of csvi: code that a"):
        load_net("owner/name")


def of_a_network_without_masks(file):
    save_file({"head.embed.weight": torch.ones(2)}, file, {"classes": json.dumps(CLASSES)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), r"method\.safetensors is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:100]), r"method\.safetensors is not of the settings"),
        (lambda file: save_file(load_file(file), file), r"method\.safetensors is not of the settings"),  # no classes
        (lambda file: save_file(load_file(file), file, {"classes": "[1, x"}), "is not of the settings"),
        (lambda file: save_file(load_file(file), file, {"classes": "[1, 2]"}), "is not of the settings"),
        (of_a_network_without_masks, r"method\.safetensors is not of the settings"),
    ],
)
def test_a_method_that_is_missing_or_damaged(saved, config, damage, message):
    damage(saved / "method.safetensors")
    with pytest.raises(CsviError, match=message):
        load_method(saved, config, load_net(saved))
