"""Networks as folders to pass on: the same weights, a card with the run's own numbers, and uploads."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from csvi.cli import main
from csvi.errors import CsviError
from csvi.export.card import model_card
from csvi.export.folder import check_repository, export_folder
from csvi.model.weights import fingerprint_of
from csvi.runs import Evaluation, Options, Run
from csvi.runs.network_files import load_net
from csvi.runs.trained import Trained


@pytest.fixture
def run(coseg_run, tmp_path):
    """A copy of a run."""
    return shutil.copytree(coseg_run, tmp_path / "run")


@pytest.mark.slow
def test_a_folder_gives_the_very_network_back(coseg_run, tmp_path):
    assert main(["export", str(coseg_run), "--format", "safetensors", "--out", str(tmp_path / "model")]) == 0
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    net = load_net(coseg_run)
    for again in (load_net(tmp_path / "model"), type(net).from_pretrained(tmp_path / "model")):
        assert net.state_dict().keys() == again.state_dict().keys()
        assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in net.state_dict().items())
    assert fingerprint_of(tmp_path / "model") == fingerprint_of(coseg_run)


def test_weights_of_16_bits_are_those_of_the_run_rounded(coseg_run, tmp_path):
    difference = export_folder(Trained.open(coseg_run), tmp_path / "model", "float16")
    assert 0 < difference < 0.01
    before, after = (load_file(folder / "model.safetensors") for folder in (coseg_run, tmp_path / "model"))
    for name, tensor in before.items():
        expected = tensor.half() if tensor.dim() > 1 else tensor
        assert torch.equal(after[name], expected)
    assert fingerprint_of(tmp_path / "model") == fingerprint_of(coseg_run)


def test_ranges_of_deep_images_go_with_the_model(run, sysu_root, tmp_path):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["infrared_range"] = "7500,8400"
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    export_folder(Trained.open(run), tmp_path / "model")
    data = Run.open(tmp_path / "model", Options(root=str(sysu_root))).data
    assert (data.visible_range, data.infrared_range) == ("auto", "7500,8400")
    assert "| infrared range | 7500,8400: " in (tmp_path / "model" / "README.md").read_text()


def test_an_export_replaces_an_export_and_nothing_else(coseg_run, tmp_path):
    model = Trained.open(coseg_run)
    export_folder(model, tmp_path / "model", "float16")
    (tmp_path / "model" / ".model.safetensors.0.partial").touch()  # as a kill leaves it
    export_folder(model, tmp_path / "model", "float32")
    assert load_file(tmp_path / "model" / "model.safetensors")["head.embed.weight"].dtype == torch.float32
    (tmp_path / "model" / "notes.txt").touch()
    with pytest.raises(CsviError, match=r"holds notes\.txt, which no export has"):
        export_folder(model, tmp_path / "model")
    (tmp_path / "model" / "notes.txt").unlink()
    with pytest.raises(CsviError, match="is what is exported: name another folder"):
        export_folder(Trained.open(tmp_path / "model"), tmp_path / "model")


def header_of(card):
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.slow
def test_the_card_has_the_numbers_of_the_run(coseg_run):
    card = model_card(Trained.open(coseg_run), repository="owner/name")
    result = Evaluation.load(coseg_run).protocols[0]
    metric = result.metrics["R1"]
    assert f"| {result.protocol} | {100 * metric.mean:.1f} [{100 * metric.low:.1f}, {100 * metric.high:.1f}] |" in card
    assert 'csvi.load("owner/name")' in card
    assert "8 identities, 64 visible and 32 infrared images" in card
    header = header_of(card)
    assert header["library_name"] == "csvi"
    assert header["model-index"][0]["results"][0]["metrics"][0] == {"type": "R1", "value": round(100 * metric.mean, 2)}
    assert "SYNTHETIC" not in card
    assert "PYTHONPATH" not in card
    assert "must not be used for without a legal basis" in card


def test_the_card_names_no_path_of_this_machine(run, tmp_path):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["method"]["weights"] = str(tmp_path / "somebody" / "initial.pth")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    card = model_card(Trained.open(run))
    assert "method.weights: initial.pth" in card
    assert str(tmp_path) not in card
    assert str(settings["data"]["root"]) not in card


def test_a_model_that_was_not_evaluated_says_so(run, caplog):
    file = run / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)  # trained on after its evaluation
    assert "**Not evaluated.**" in model_card(Trained.open(run))
    assert "is of other weights, images or settings" in caplog.text
    (run / "evaluation.json").unlink()
    card = model_card(Trained.open(run))
    assert "**Not evaluated.**" in card
    assert "model-index" not in header_of(card)


def test_a_model_of_rendered_people_is_headed_so_and_images_that_are_gone_are_named(run):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["root"] = str(run / "nowhere")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    plain = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps(plain | {"synthetic": True}))
    card = model_card(Trained.open(run))
    assert card.split("---\n")[2].startswith("> **SYNTHETIC.**")
    assert "the images were not there to check" in card
    assert header_of(card)["model-index"][0]["results"][0]["dataset"]["type"] == "synthetic"


class FakeHub:
    """Remembers what is asked of it."""

    asked: list = []  # noqa: RUF012
    fails: Exception | None = None

    def create_repo(self, repo_id, **options):
        self.asked.append((repo_id, options))
        if self.fails:
            raise self.fails
        return f"hub:{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, allow_patterns):
        self.asked.append((repo_id, {file.name for file in folder_path.iterdir()}))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("csvi.export.folder.HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "asked", [])
    return FakeHub


def test_a_pushed_model_is_private_and_its_card_names_the_repository(hub, coseg_run, tmp_path, capsys):
    folder = tmp_path / "model"
    options = ["--format", "safetensors", "--out", str(folder), "--push", "owner/name"]
    assert main(["export", str(coseg_run), *options]) == 0
    assert hub.asked == [
        ("owner/name", {"private": True, "exist_ok": True}),
        ("owner/name", {"README.md", "config.json", "model.safetensors"}),
    ]
    assert "uploaded: hub:owner/name" in capsys.readouterr().out
    assert 'csvi.load("owner/name")' in (folder / "README.md").read_text()


@pytest.mark.parametrize("kind", [OSError, Exception])  # one of the HTTP client's own
def test_an_upload_that_fails_is_one_sentence_and_the_folder_is_whole(
    hub, coseg_run, tmp_path, monkeypatch, capsys, kind
):
    monkeypatch.setattr(hub, "fails", kind("401 Client Error\n\nInvalid user token."))
    folder = tmp_path / "model"
    options = ["--format", "safetensors", "--out", str(folder), "--push", "owner/name"]
    assert main(["export", str(coseg_run), *options]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "to owner/name (401 Client Error Invalid user token.): it is whole on this machine; log in" in said
    load_net(folder)


def test_a_model_that_nobody_could_load_is_not_pushed():
    with pytest.raises(CsviError, match="theirs:Theirs is not one of the methods of csvi"):
        check_repository("owner/name", "theirs:Theirs")
