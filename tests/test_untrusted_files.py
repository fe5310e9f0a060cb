"""Files of strangers: whatever may hold code is refused, and none of it runs."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import csvi
from csvi.cli import main
from csvi.errors import CsviError
from csvi.model.net import PartNet
from csvi.runs import save_config
from csvi.train.loop import train

# torch says itself that it may not know protocol 4
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")
PICKLES = [
    lambda what, file: torch.save(what, file),
    lambda what, file: torch.save(what, file, _use_new_zipfile_serialization=False),
    lambda what, file: file.write_bytes(pickle.dumps(what)),
    lambda what, file: file.write_bytes(pickle.dumps(what, protocol=0)),
]


@pytest.fixture
def csvi_train(config, tmp_path, capsys):
    def refused(*arguments):
        save_config(config, tmp_path / "settings.yaml")
        config_file = f"--config={tmp_path / 'settings.yaml'}"
        assert main(["train", config_file, f"--run={tmp_path / 'run'}", *map(str, arguments)]) == 1
        message = capsys.readouterr().err
        assert "weights_only" not in message  # torch would advise to run it
        return message.splitlines()[-1]

    return refused


@pytest.mark.parametrize("save", PICKLES)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights"])
def test_initial_weights(trap, csvi_train, tmp_path, save, name):
    save({"0.0.weight": trap}, tmp_path / name)
    assert f"{name} is damaged or no state dict" in csvi_train(f"--method.weights={tmp_path / name}")


@pytest.mark.parametrize("save", PICKLES)
def test_the_file_of_an_earlier_download(trap, csvi_train, config, tmp_path, monkeypatch, save):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    config.method.backbone = "resnet18"
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    save({"conv1.weight": trap}, tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    assert "the ImageNet weights of resnet18" in csvi_train("--method.weights=imagenet")


@pytest.mark.parametrize("save", PICKLES)
def test_a_checkpoint_to_resume(trap, csvi_train, tmp_path, save):
    save({"network": trap, "optimizer": {}, "epoch": 0, "step": 0, "identities": []}, tmp_path / "some.ckpt")
    assert "some.ckpt is damaged or no checkpoint of csvi" in csvi_train(f"--resume={tmp_path / 'some.ckpt'}")


@pytest.fixture
def run(coseg_run, tmp_path):
    run = shutil.copytree(coseg_run, tmp_path / "trained")
    for name in ("evaluation.json", "embeddings.npz"):
        (run / name).unlink()
    return run


@pytest.mark.parametrize("save", PICKLES)
@pytest.mark.parametrize("name", ["model.safetensors", "method.safetensors"])
def test_the_network_of_a_run(trap, run, capsys, save, name):
    save({"a": trap}, run / name)
    assert main(["evaluate", str(run)]) == 1
    assert name in capsys.readouterr().err.splitlines()[-1]


def test_a_model_of_the_hub_without_safetensors(trap, run, tmp_path, monkeypatch):
    """huggingface_hub would go on to pytorch_model.bin."""
    torch.save({"a": trap}, run / "pytorch_model.bin")
    (run / "model.safetensors").unlink()
    with pytest.raises((CsviError, OSError)):
        PartNet.from_pretrained(run)

    from huggingface_hub import hub_mixin
    from huggingface_hub.errors import EntryNotFoundError

    def hf_hub_download(filename, **_):
        if not (run / filename).exists():
            raise EntryNotFoundError(filename)
        return str(run / filename)

    monkeypatch.setattr(hub_mixin, "hf_hub_download", hf_hub_download)
    with pytest.raises(CsviError, match=r"pytorch_model\.bin is not read, as it may hold code"):
        PartNet.from_pretrained("owner/name")
    monkeypatch.setattr("csvi.runs.network_files.snapshot_download", lambda *_, **__: str(run))
    assert main(["evaluate", "owner/name", "--data.root=nowhere"]) == 1
    shutil.rmtree(run)


def test_embeddings_from_elsewhere(trap, sysu_root, tmp_path, capsys):
    file = tmp_path / "features.npz"
    for save in (
        lambda: np.savez(file, embedding=np.array([trap], dtype=object), path=np.array(["a"])),
        lambda: file.write_bytes(pickle.dumps({"embedding": trap})),
    ):
        save()
        assert main(["evaluate", f"--features={file}", f"--data.root={sysu_root}"]) == 1
        assert "is no .npz of plain arrays" in capsys.readouterr().err


@pytest.mark.slow
def test_embeddings_that_an_evaluation_left(trap, run, capsys):
    """They are computed anew."""
    assert main(["evaluate", str(run)]) == 0
    protocols = json.loads((run / "evaluation.json").read_text())["protocols"]
    file = run / "embeddings.npz"
    with np.load(file) as arrays:
        key, path = arrays["key"], arrays["path"]
    objects = np.array([trap], dtype=object)
    for arrays in ({"embedding": objects, "key": key}, {"embedding": np.eye(len(path)), "key": objects}):
        np.savez(file, path=path, **arrays)
        assert main(["evaluate", str(run)]) == 0
        assert json.loads((run / "evaluation.json").read_text())["protocols"] == protocols


@pytest.mark.slow
def test_decoded_images_in_the_cache(trap, config, tmp_path):
    config.data.cache = str(tmp_path / "cache")
    train(config, tmp_path / "run")
    damages = (
        lambda file: np.save(file, np.array([trap], dtype=object), allow_pickle=True),
        lambda file: file.write_bytes(pickle.dumps(trap)),
    )
    for n, save in enumerate(damages):
        files = {file: file.read_bytes() for file in (tmp_path / "cache").iterdir()}
        for file in files:
            save(file)
        train(config, tmp_path / f"again{n}")
        assert {file: file.read_bytes() for file in files} == files


MODULES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
CALLS = {"load_state_dict_from_url", "literal_eval", "exec", "unsafe_load", "full_load", "Unpickler"}
READERS = {"load", "load_all", "serialization", "hub", "*"} | CALLS
"""Of torch and YAML, to be called by their full names alone."""
YAML = {"safe_load", "safe_dump", "SafeLoader", "YAMLError", "MarkedYAMLError", "AliasEvent", "ScalarNode"}


def dangers(source):
    """Lines that could read code: torch.load only of weights, arrays without pickles, YAML without objects."""
    yield from (n for n, line in enumerate(source.splitlines(), start=1) if "trust_remote_code" in line)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = {alias.name.partition(".")[0] for alias in node.names}
            renamed = {alias.name.partition(".")[0] for alias in node.names if alias.asname}
            if modules & MODULES or renamed & {"torch", "yaml"}:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom):
            module, names = (node.module or "").partition(".")[0], {alias.name for alias in node.names}
            if module in MODULES or (module in ("torch", "yaml", "numpy") and names & READERS):
                yield node.lineno
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            loads = name.startswith(("torch.", "fabric.")) and name.endswith(".load")
            if (
                name == "eval"
                or name.rpartition(".")[2] in CALLS
                or ((loads or name.endswith(".get_state_dict")) and keywords.get("weights_only") != "True")
                or keywords.get("allow_pickle", "False") != "False"
            ):
                yield node.lineno
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("yaml.") and node.attr not in YAML:
            yield node.lineno


def test_nothing_is_read_that_may_hold_code():
    """But by the workers of Ray, who read from each other, as Ray does itself: who reaches its ports runs code."""
    for file in Path(csvi.__file__).parent.rglob("*.py"):
        if file.name != "ray_engine.py":
            assert not [f"{file}:{line}" for line in dangers(file.read_text())]


def test_workers_of_ray_read_no_files():
    text = (Path(csvi.__file__).parent / "ray_engine.py").read_text()
    assert "open(" not in text
    assert "pickle.load(" not in text


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import torch as t",
        "from torch import load as x",
        "from torch import *",
        "from torch.serialization import load",
        "from torch import hub",
        "from numpy import load",
        "from yaml import unsafe_load as x",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "torch.hub.load(x)",
        "fabric.load(x)",
        "weights.get_state_dict()",
        "np.load(x, allow_pickle=True)",
        "yaml.load(x)",
        "eval(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, **{'trust_remote_code': True})",
    ],
)
def test_what_may_hold_code_is_found(line):
    assert set(dangers(f"x = 1\n{line}")) == {2}
