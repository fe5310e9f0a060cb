"""Methods of the field beside what was published of them: their settings, and the table."""

import dataclasses
from functools import partial

import pytest

from csvi.analysis.reproduce import _beside_the_paper, runs_of
from csvi.analysis.reproduce_methods import _table, configs_of, published_config, reproduce_methods
from csvi.cli import main
from csvi.data import protocols_of
from csvi.data.images import BadImage
from csvi.errors import CsviError
from csvi.methods import METHODS, find_method
from csvi.runs import Evaluation
from csvi.runs.settings import as_method


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_settings_of_its_publication(name):
    assert published_config(name, "sysu").method.name == name


def test_a_dataset_may_have_settings_of_its_own():
    assert published_config("coseg", "regdb").data.layout == "regdb"
    assert [published_config("hctri", dataset).method.power for dataset in ("sysu", "regdb")] == [3, 10]
    assert [published_config("agw", dataset).data.identities for dataset in ("sysu", "regdb", "llcm")] == [8, 8, 8]


def test_weights_of_a_method():
    configs = configs_of(["agw", "pmt"], "sysu", {"pmt": "vit.pth"})
    assert [config.method.weights for config in configs.values()] == ["imagenet", "vit.pth"]


@pytest.mark.slow
def test_ours_beside_the_published(config, sysu_root, tmp_path, latin_1, monkeypatch):
    monkeypatch.setattr("csvi.runs.evaluation.protocols_of", partial(protocols_of, trials=2))
    names = "caj", "baseline"  # of which one is tested with mirror images too
    configs = {name: dataclasses.replace(config, method=as_method(config.method, name)) for name in names}
    arguments = "sysu", configs, str(sysu_root), tmp_path / "out"
    with pytest.raises(CsviError, match=r"has \d+ problems"):
        reproduce_methods(*arguments)
    text = reproduce_methods(*arguments, anyway=True).read_text(encoding="utf-8")
    assert text.startswith("# SYSU-MM01")
    assert "- caj: caj.yaml; weights none" in text
    table = text.partition("## all-search single-shot")[2].partition("##")[0]
    (caj,) = [line for line in table.splitlines() if line.startswith("| caj |")]
    cells = [cell.strip() for cell in caj.strip("|").split("|")]
    assert all(0 <= float(cell) <= 100 for cell in cells[1:5])
    assert cells[5:] == ["69.88 / - / - / 66.89", find_method("caj").published.source]
    assert text.count("| baseline |") == text.count("\n## ") == 4
    monkeypatch.setattr("csvi.analysis.ablate.train", None)  # nothing is trained again
    assert reproduce_methods(*arguments, anyway=True).read_text(encoding="utf-8") == text


def test_protocols_are_averaged_by_their_names(coseg_run):
    """One without an answerable query has no result, and the others of that run move up."""
    evaluation = Evaluation.load(coseg_run)
    fewer = dataclasses.replace(evaluation, protocols=evaluation.protocols[1:])
    for text in (
        _table("sysu", fewer.protocols[0].protocol, {"coseg": [fewer, evaluation]}),
        _beside_the_paper("sysu", "coseg", [fewer, evaluation]),
    ):
        ours = next(line for line in text.splitlines() if "coseg" in line)
        assert ours.count(" ± 0.0 |") == 4


def test_no_seeds_are_no_runs(config, tmp_path):
    with pytest.raises(CsviError, match="0 seeds: at least one is needed"):
        runs_of("coseg", config, tmp_path, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["llcm"], "the paper has no figures of LLCM"),
        (["sysu", "--methods", "agw", "agw"], "a method stands twice among agw, agw"),
        (["sysu", "--methods", "agww"], "unknown method 'agww'"),
        (["sysu", "--methods", "agw", "--weights", "vit.pth"], "it must be METHOD=PATH"),
        (["sysu", "--methods", "agw", "--weights", "pmt=vit.pth"], "weights are given of pmt, which is not among"),
        (["sysu", "--weights", "agw=vit.pth"], "for the paper's tables set method.weights in a --config file"),
        (["sysu", "--methods", "agw", "--seeds", "0"], "0 seeds"),
        (["sysu", "--methods", "agw", "--config", "x.yaml"], "--config is of the paper's tables"),
    ],
)
def test_what_cannot_be_reproduced(arguments, says, tmp_path, capsys):
    assert main(["reproduce", *arguments, "--data.root", str(tmp_path)]) != 0
    assert says in capsys.readouterr().err


def test_weights_that_are_missing_are_named_before_anything_is_trained(config, sysu_root, tmp_path):
    configs = {"baseline": config, "agw": configs_of(["agw"], "sysu", {"agw": str(tmp_path / "none.pth")})["agw"]}
    with pytest.raises(CsviError, match=r"agw: no such file of weights: .*none.pth"):
        reproduce_methods("sysu", configs, str(sysu_root), tmp_path / "out", anyway=True)
    assert not (tmp_path / "out").exists()


def test_without_a_network_what_this_command_takes_is_named(sysu_root, tmp_path, monkeypatch, capsys):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.ResNet50_Weights.get_state_dict", offline)
    for module in ("reproduce", "reproduce_methods"):
        monkeypatch.setattr(f"csvi.analysis.{module}.check_to_train", lambda *_: None)
    arguments = ["reproduce", "sysu", f"--data.root={sysu_root}", f"--out={tmp_path / 'out'}"]
    for methods, says in (
        ([], "let method.weights be the path of a file, or none, to start from scratch\n"),
        (["--methods", "agw"], "start from scratch (method.weights is --weights agw=PATH here)\n"),
    ):
        assert main([*arguments, *methods]) == 1
        assert capsys.readouterr().err.endswith(says)


def test_an_error_of_a_kind_of_its_own_is_said_as_it_is(sysu_root, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise BadImage(tmp_path / "1.jpg", "is empty")

    monkeypatch.setattr("csvi.analysis.reproduce.reproduce", fail)
    assert main(["reproduce", "sysu", f"--data.root={sysu_root}", f"--out={tmp_path / 'out'}"]) == 1
    assert capsys.readouterr().err == f"csvi reproduce: cannot read the image {tmp_path / '1.jpg'}: it is empty\n"
