"""A method in a file of its own, outside the package, is trained, resumed, evaluated and compared as those inside."""

import json
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from csvi.analysis import ablate
from csvi.cli import main
from csvi.errors import CsviError
from csvi.methods import code_of, find_method
from csvi.methods.contract import checked_terms
from csvi.model.weights import noted
from csvi.runs import Run, load_config, load_net
from csvi.train import loop
from csvi.train.cost import Cost

MODULE = '''\
"""A small network for both spectra, which sees each visible image a second time, with one colour in all channels."""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from csvi.config import MethodSettings
from csvi.data import Modality
from csvi.data.views import Operation, standard_views
from csvi.methods import Method
from csvi.model.net import EmbeddingNet


@dataclass(frozen=True)
class OneColour(Operation):
    """Show one colour channel in all three."""

    def draw(self, rng, height, width):
        return int(rng.integers(3))

    def apply(self, image, mask, drawn):
        return image[[drawn] * 3], mask


class SmallNet(EmbeddingNet):
    """Two convolutions and a linear layer, whatever the modality."""

    def __init__(self, method, height, width, dim):
        super().__init__(method, height, width)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=4, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d((6, 1)), nn.Flatten(), nn.Linear(6 * 32, dim),
        )

    def forward(self, image, modality):
        return F.normalize(self.layers(image), dim=1)


@dataclass
class Settings(MethodSettings):
    """Settings of the network and of its losses."""

    name: str = "one_colour:OneColourMethod"
    """Where the class is found: module:Class."""
    dim: int = 32
    """Length of an embedding."""
    scale: float = 16.0
    """Factor on the cosines that are the scores of the identities."""
    view_weight: float = 1.0
    """Weight of the distance between the two views of a visible image."""


class OneColourMethod(Method):
    """Identity loss on all views, and a loss that draws the views of a visible image together."""

    Settings = Settings
    Net = SmallNet
    title = "One colour"
    paper = "nobody's"

    def __init__(self, settings, identities, height, width):
        super().__init__(settings, identities, height, width)
        self.net = SmallNet(settings.name, height, width, settings.dim)  # what is kept
        self.classify = nn.Linear(settings.dim, identities, bias=False)  # in training only

    def views(self, data):
        """Visible images as they are augmented by default, then the same in one colour."""
        views = standard_views(data)
        (visible,) = views[Modality.VISIBLE]
        return {**views, Modality.VISIBLE: (visible, (*visible, OneColour()))}

    def forward(self, batch, step):
        embedding = self.net(batch.image, batch.route or batch.modality).float()
        scores = self.settings.scale * F.linear(embedding, F.normalize(self.classify.weight, dim=1))
        colour, one_colour, _ = embedding.chunk(3)  # the visible images come first, view by view
        return {
            "identity": F.cross_entropy(scores, batch.identity),
            "views": self.settings.view_weight * (colour - one_colour).square().sum(1).mean(),
        }
'''
NAME = "one_colour:OneColourMethod"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the module in it, in which Python looks and runs are written."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "one_colour.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder
    sys.modules.pop("one_colour", None)


@pytest.fixture(scope="module")
def arguments(folder, sysu_root, cache_folder):
    """Two epochs of four steps."""
    data = {"root": sysu_root, "cache": cache_folder, "height": 48, "width": 24, "train_on": "train", "identities": 4}
    settings = {"epochs": 2, "validate_every": 1, "optimizer": "adamw", "lr": 0.003}
    return [
        f"--method={NAME}", "--precision=32-true", "--data.workers=0", *(f"--data.{k}={v}" for k, v in data.items()),
        *(f"--train.{k}={v}" for k, v in settings.items()),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(folder, arguments):
    """A run of it that is trained and evaluated."""
    assert main(["train", *arguments, "--run=first"]) == 0
    assert main(["evaluate", "first"]) == 0
    return folder / "first"


def outcome(run):
    """Metrics but for the speed, and all tensors."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("train/images_per_second", None)
    tensors = load_file(run / "model.safetensors") | load_file(run / "method.safetensors")
    return lines, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_it_is_trained_and_its_terms_are_logged(trained):
    lines, tensors = outcome(trained)
    steps = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert {"train/identity", "train/views"} <= steps[0].keys()
    assert steps[-1]["train/identity"] < steps[0]["train/identity"]
    assert sum("val/R1" in line for line in lines) == 2
    assert "classify.weight" in tensors
    config = load_config(trained / "config.yaml")
    assert type(config.method) is find_method(NAME).Settings
    assert (config.method.name, config.method.dim) == (NAME, 32)


def test_what_is_kept_is_its_network_alone(trained):
    net = load_net(trained)
    assert type(net) is find_method(NAME).Net
    assert net.state_dict().keys() == load_file(trained / "model.safetensors").keys()
    assert "classify.weight" not in net.state_dict()
    assert json.loads((trained / "config.json").read_text()) == {
        "method": NAME, "height": 48, "width": 24, "dim": 32
    }  # fmt: skip


def assert_told_to_be_unfinished(run, capsys, caplog):
    """Where its metrics stand, and wherever its network goes."""
    assert main(["evaluate", "first", run]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Its training had not ended: 3 of 8 steps.") == 1
    assert f"no mean over these runs, as the training of {run} has not ended" in shown
    assert main(["compare", "first", run]) == 0
    assert f"The training of {run} had not ended: 3 of 8 steps." in capsys.readouterr().out
    assert main(["export", run, "--format=safetensors", "--out=passed-on"]) == 0
    assert f"the training of {run} has not ended: 3 of 8 steps" in caplog.text
    assert "| training | **not ended**: 3 of 8 steps |" in Path("passed-on/README.md").read_text()
    assert noted(Path("passed-on"))["unfinished"] == "3 of 8 steps"


def test_resumed_as_if_never_stopped(trained, arguments, monkeypatch, capsys, caplog):
    step, steps = loop.train_step, []

    def stopped_after_three(*rest):
        steps.append(step(*rest))
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return steps[-1]

    monkeypatch.setattr(loop, "train_step", stopped_after_three)
    assert main(["train", *arguments, "--run=stopped"]) == 75
    assert_told_to_be_unfinished("stopped", capsys, caplog)
    assert main(["train", *arguments, "--run=stopped", "--resume=auto"]) == 0
    assert len(steps) == 8
    assert outcome(trained.parent / "stopped") == outcome(trained)


def test_a_visible_image_is_seen_twice_and_draws_the_same_again(trained):
    run = Run.open(trained)
    loader, _ = run.training_set.loader(run.method.views(run.data), seed=0)
    first, again = next(iter(loader)), next(iter(loader))
    assert len(first.image) == 3 * 4 * 4
    assert first.view.tolist() == 16 * [0] + 16 * [1] + 16 * [0]
    assert first.identity[:16].equal(first.identity[16:32])
    one_colour = first.image[16:32]
    assert one_colour.equal(one_colour[:, :1].expand_as(one_colour))
    assert torch.equal(first.image, again.image)


def test_it_is_evaluated_from_its_run_folder(trained, capsys):
    assert main(["evaluate", str(trained), "--flip"]) == 0
    shown = capsys.readouterr().out
    assert "flip averaging" in shown
    found = json.loads((trained / "evaluation.json").read_text())
    assert found["model"] == "first"
    assert found["masks"] == {}  # it predicts none
    assert all(0 < result["metrics"]["mAP"]["mean"] <= 1 for result in found["protocols"])


def test_its_settings_are_in_the_help_and_are_checked(folder, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", f"--method={NAME}", "--help"])
    help_of_it = capsys.readouterr().out
    assert "--method.view_weight" in help_of_it
    assert "--method.parts" not in help_of_it
    with pytest.raises(SystemExit, match="2"):
        main(["train", f"--method={NAME}", "--method.dim=much"])
    assert "dim" in capsys.readouterr().err


def test_code_that_has_changed_is_told_and_embeds_anew(trained, sysu_root, tmp_path, capsys, caplog, monkeypatch):
    run = shutil.copytree(trained, tmp_path / "run")
    embed = ["embed", str(sysu_root / "cam1"), f"--run={run}", f"--out={tmp_path / 'features.npz'}"]
    for command in (["evaluate", str(run)], embed):
        assert main(command) == 0
    evaluated = Run.open(run)
    assert evaluated.kept_embeddings() is not None
    told = f"the code of {NAME} is not what it was when {run} was trained: embeddings may be others"
    assert told not in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr("csvi.runs.network_files.code_of", lambda name: "0123456789abcdef")
        patch.setattr("csvi.runs.run.code_of", lambda name: "0123456789abcdef")
        patch.setattr("csvi.search.torch_embedder.code_of", lambda name: "0123456789abcdef")
        assert Run.open(run).kept_embeddings() is None
        assert main(["evaluate", str(run)]) == 0
        assert told in caplog.text
        assert main(embed) == 1
        assert "holds embeddings of other images than" in capsys.readouterr().err
        config = load_config(run / "config.yaml")
        assert ablate.is_done(config, run)
        ablate.run_once(config, run)
        assert f"{run} is of other code of {NAME} than there is now" in caplog.text


def test_the_digest_of_code_is_that_of_its_file(folder):
    digest = code_of(NAME)
    assert re.fullmatch("[0-9a-f]{16}", digest)
    (folder / "two_colours.py").write_text(MODULE + "\n")
    assert code_of("two_colours:OneColourMethod") not in ("", digest)
    assert [code_of(name) for name in ("coseg", "nowhere:Method", "no.where:Method", "")] == [""] * 4


@pytest.mark.slow
def test_it_stands_in_ablations_and_comparisons(trained, arguments, capsys, monkeypatch):
    monkeypatch.setattr(ablate, "training_cost", lambda config, identities: Cost(2, 1, 1.0, 2**30, "none"))
    variant = f"{NAME}:method.view_weight=0"
    out = trained.parent / "ablation"
    shutil.copytree(trained, out / NAME.replace(":", ".") / "0")
    assert main(["ablate", *arguments, "--variants", NAME, variant, "--seeds=1", f"--out={out}"]) == 0
    rows = json.loads((out / "ablation.json").read_text())["rows"]
    assert [(row["method"], row["settings"]) for row in rows] == [(NAME, {}), (NAME, {"method.view_weight": "0"})]
    table = capsys.readouterr().out
    assert "view_weight" in table
    other = out / f"{NAME.replace(':', '.')}_view_weight-0" / "0"
    assert load_config(other / "config.yaml").method.view_weight == 0
    assert main(["compare", str(trained), str(other)]) == 0
    assert "view_weight-0" in "".join(capsys.readouterr().out.split())  # in a narrow column


def test_the_run_cannot_be_resumed_with_another_method(trained, arguments, capsys):
    with_another = ["--method=baseline", *arguments[1:], "--run=first", "--resume=auto"]
    assert main(["train", *with_another]) == 1
    assert f"first was trained with the method {NAME}, not with baseline" in capsys.readouterr().err


def test_code_that_a_model_of_the_hub_names_is_not_run(trained, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    commit = tmp_path / "0123abc"
    shutil.copytree(trained, commit)
    monkeypatch.setattr("csvi.runs.network_files.snapshot_download", lambda *_, **__: str(commit))
    for name in (NAME, "evil:OneColourMethod"):
        settings = json.loads((commit / "config.json").read_text())
        (commit / "config.json").write_text(json.dumps(settings | {"method": name}))
        with pytest.raises(
            CsviError, match=rf"owner/name is of the method {name}, which is not one of csvi: code that"
        ):
            load_net("owner/name")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere:Method",
            r"cannot import the method nowhere:Method \(ModuleNotFoundError.*put its folder on PYTHONPATH",
        ),
        ("one_colour:Nothing", "one_colour:Nothing is no method: it must name a class that derives from csvi.methods"),
        ("one_colour:SmallNet", "one_colour:SmallNet is no method"),
        ("one_colour", "unknown method 'one_colour': choose one of baseline, .*, or name a class as module:Class"),
    ],
)
def test_what_is_no_method_is_said_in_one_sentence(folder, name, message, capsys):
    assert main(["train", f"--method={name}", "--data.root=."]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said)


def test_a_method_and_a_network_that_disagree_on_masks_are_refused(build, monkeypatch):
    monkeypatch.setattr(find_method("baseline"), "tests_with_masks", lambda settings: True)
    with pytest.raises(CsviError, match="baseline and its network disagree on masks at test"):
        build("baseline")


@pytest.fixture
def train_variant(folder, arguments, capsys):
    """Train the method with one change of its code, in a module of its own; gives the exit status and what is said."""

    def train(old, new):
        assert MODULE.count(old) == 1
        (folder / "variant.py").write_text(MODULE.replace(old, new))
        sys.modules.pop("variant", None)
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)  # whose times are of whole seconds
        named = ["--method=variant:OneColourMethod", *arguments[1:], "--train.epochs=1"]
        status = main(["train", *named, "--run=variant"])
        return status, capsys.readouterr().err

    yield train
    shutil.rmtree(folder / "variant", ignore_errors=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "class Settings(MethodSettings)",
            "class Settings",
            ".Settings must be a dataclass that derives from csvi.config.MethodSettings",
        ),
        ("@dataclass\nclass Settings", "class Settings", ".Settings: write @dataclass above Settings, or name is no"),
        ("    Net = SmallNet\n", "", ".Net must be the class of its network, derived from csvi.model.net.EmbeddingNet"),
        ("Net = SmallNet", "Net = nn.Linear", ".Net must be the class of its network"),
        ("def forward(self, batch", "def losses(self, batch", " must have a method forward(self, batch, step)"),
        ("self.net = ", "self.network = ", ".net must be of its class Net, SmallNet, and is not there"),
        ("self.net = SmallNet(", "self.net = nn.Linear(1, 2)\n        SmallNet(", "SmallNet, and is a Linear"),
        (
            "SmallNet(settings.name, height, width",
            "SmallNet(settings.name, width, height",
            " must give its network settings.name, height and width: ('variant:OneColourMethod', 48, 24), not ",
        ),
        ("        return {\n", "        {\n", "it returned None"),
        ("        return {\n", "        return scores.sum()\n        {\n", "it returned a Tensor"),
        ("        return {\n", "        return {}\n        {\n", "it returned an empty one"),
        ("(scores, batch.identity),", "(scores, batch.identity).item(),", "'identity' is a float"),
        ("(scores, batch.identity),", "(scores, batch.identity)[None],", "'identity' is of shape (1,)"),
        (
            "        return {\n",
            "        return {'all': scores.detach().sum()}\n        {\n",
            "that depend on its parameters: none of all has a gradient",
        ),
    ],
)
def test_a_method_that_breaks_the_contract_is_told_how_and_trains_once_it_is_mended(train_variant, old, new, message):
    status, said = train_variant(old, new)
    assert status == 1
    assert said.splitlines()[-1].startswith("csvi train: variant:OneColourMethod")
    assert message in said
    assert train_variant("paper = ", "paper = ")[0] == 0


def test_terms_are_looked_at_without_their_values():
    """The device of these has none."""
    method = find_method("baseline").__new__(find_method("baseline"))
    terms = {"identity": torch.zeros((), device="meta", requires_grad=True)}
    assert checked_terms(terms, method) is terms


def test_an_exported_folder_says_which_module_it_needs(trained, tmp_path, capsys):
    assert main(["export", str(trained), "--format=safetensors", f"--out={tmp_path / 'model'}"]) == 0
    assert "needs: the module one_colour, installed or on PYTHONPATH" in capsys.readouterr().out
    card = (tmp_path / "model" / "README.md").read_text()
    assert "**It needs a module that csvi does not bring: `one_colour`**" in card
    assert "the code of its method `one_colour:OneColourMethod`" in card
