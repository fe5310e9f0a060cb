"""The ablation and the reproduction from nothing to tables, on small data."""

import dataclasses
import json
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import yaml

from csvi.analysis import ablate as module
from csvi.analysis.ablate import Variant, ablate, choose, is_done, run_once
from csvi.analysis.reproduce import reproduce
from csvi.catalogue import TABLE_3
from csvi.cli import main
from csvi.config import flatten
from csvi.data import protocols_of, read_benchmark
from csvi.errors import CsviError
from csvi.methods import build_method, find_method
from csvi.methods.compared import COMPARED
from csvi.runs import load_config, save_config
from csvi.synth import SynthConfig, write_benchmark
from csvi.train.checkpoint import epochs_done
from csvi.train.cost import Cost
from csvi.train.loop import train

PAPERS = (*TABLE_3, "coseg+")
PAPER = ("R1", "R10", "R20", "mAP")


@pytest.fixture
def small(config, latin_1, monkeypatch):
    """A small trunk, two galleries of each protocol, not ten, and no cost is measured."""
    config.train.validate_every = 1
    fewer = partial(protocols_of, trials=2)
    monkeypatch.setattr("csvi.runs.evaluation.protocols_of", fewer)
    monkeypatch.setattr(module, "training_cost", lambda config, identities: _parameters(config, identities))
    return config


def _parameters(config, identities):
    """The cost that needs no measurement; tests/train/test_cost.py measures."""
    method = build_method(config, identities)
    sizes = [sum(p.numel() for p in of.parameters()) for of in (method, method.net)]
    return Cost(*sizes, seconds_a_step=1.0, bytes=2**30, device="none")


def test_a_variant_is_a_method_and_settings_of_its_own(small):
    text = "coseg:method.weights_from=leave-one-out,method.head=false,method.segmentation_weight=20"
    variant = Variant.parse(text, small)
    assert str(variant) == "coseg_weights_from-leave-one-out_head-false_segmentation_weight-20"
    applied = variant.with_seed(3)
    changed = {name: value for name, value in flatten(applied).items() if value != flatten(small)[name]}
    assert changed == {
        "method.weights_from": "leave-one-out", "method.head": False, "method.segmentation_weight": 20, "seed": 3,
    }  # fmt: skip
    assert (small.seed, variant.config) == (0, dataclasses.replace(applied, seed=0))


def test_a_variant_of_another_method_takes_what_it_has_too(small):
    applied = Variant.parse("decode:data.height=64", small).config
    assert (applied.method.name, applied.method.backbone, applied.method.widths) == ("decode", "mobilenet_v2", (16, 8))
    assert applied.data.height == 64
    assert not hasattr(applied.method, "weights_from")


def test_a_path_among_the_settings_leads_out_of_no_folder(small):
    assert str(Variant.parse("coseg:method.weights=../../w.pth", small)) == "coseg_weights-..-..-w.pth"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosegg", "unknown method 'cosegg': choose one of baseline"),
        ("cosge:method.head=false", "unknown method 'cosge': choose one of baseline"),
        ("coseg:head", "must be name=value"),
        ("coseg:method.haed=1", "unknown setting 'method.haed'"),
        ("decode:method.head=false", "unknown setting 'method.head'"),
        ("coseg:method.weights_from=nowhere", "weights_from"),
        ("coseg:method.head_weight=-1", "head_weight is -1"),
        ("coseg:seed=7", "^seed can be set by no variant and no grid: each variant is trained with the seeds"),
        ("coseg:method.name=decode", "method.name can be set by no variant and no grid: each variant begins with"),
    ],
)
def test_bad_variants(text, message, small):
    with pytest.raises(CsviError, match=message):
        Variant.parse(text, small)


@pytest.fixture
def counted(monkeypatch):
    """How often each run was trained, evaluated, or looked at whether it is done."""
    calls = Counter()

    def count(name, right, at):
        def counting(*arguments, **options):
            calls[name, str(arguments[at])] += 1
            return right(*arguments, **options)

        monkeypatch.setattr(module, name, counting)

    count("train", train, 1)
    count("run_once", run_once, 1)
    return calls


@pytest.mark.slow
def test_all_variants_to_a_table_and_nothing_twice(small, tmp_path, monkeypatch, counted):
    grid = {"method.segmentation_weight": [1, 20]}
    table = ablate(small, list(PAPERS), 2, tmp_path / "out", grid)
    runs = {f"{path.parent.parent.name}/{path.parent.name}" for path in (tmp_path / "out").rglob("model.safetensors")}
    masked = ("segment", "decode", "coseg", "coseg+")
    assert {f"{variant}/{seed}" for variant in ("baseline", "select") for seed in (0, 1)} <= runs
    assert {f"{variant}_segmentation_weight-{weight}/0" for variant in masked for weight in (1, 20)} <= runs
    assert len(runs) == 4 + 4 * 3
    trained = [calls for (name, _), calls in counted.items() if name == "train"]
    assert trained == [1] * len(runs)
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [row["variant"] for row in found["rows"]] == list(PAPERS)
    assert all([Path(run).name for run in row["runs"]] == ["0", "1"] for row in found["rows"])
    assert all((Path(run) / "evaluation.json").is_file() for row in found["rows"] for run in row["runs"])
    assert [bool(row["differences"]) for row in found["rows"]] == [False, True, True, True, True, True]
    assert all(len(row["metrics"]["R1"]["runs"]) == 2 for row in found["rows"])
    testing = {row["variant"]: row["cost"]["parameters_testing"] for row in found["rows"]}
    assert testing["coseg"] == testing["decode"] == testing["select"] == testing["baseline"] < testing["segment"]
    best = {}
    for tried in found["tried"]:
        best.setdefault(tried["variant"], []).append((tried["mAP"], tried["chosen"]))
    assert list(best) == list(masked)
    for candidates in best.values():
        assert max(candidates)[1]
        assert sum(chosen for _, chosen in candidates) == 1
    text = table.read_text(encoding="utf-8")
    assert text.startswith("# ablation on SYSU-MM01")
    assert "| coseg | " in text
    assert next(line for line in text.splitlines() if line.startswith("| coseg+ ")).endswith("|  |  |")  # ours
    assert "Baseline+CoSeg_ReID † | 70.13 / 96.15 / 65.32 |" in text
    ours = {row["variant"]: row["metrics"] for row in found["rows"]}
    for metric, paper in (("R1", "+4.27"), ("mAP", "+3.30")):
        added = found["coseg_over_decode"][metric]
        expected = ours["coseg"][metric]["mean"] - ours["decode"][metric]["mean"]
        assert added["difference"] == pytest.approx(expected)
        assert f"{metric} {100 * expected:+.1f} [{100 * added['low']:+.1f}, {100 * added['high']:+.1f}]" in text
        assert f"{metric} {paper}" in text
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 10_000

    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    assert ablate(small, list(PAPERS), 2, tmp_path / "out", grid).read_text(encoding="utf-8") == text
    small.train.lr = 0.5
    with pytest.raises(CsviError, match=r"baseline/0 under other settings \(train.lr was"):
        ablate(small, ["baseline"], 1, tmp_path / "out")


def test_candidates_are_not_run_again_to_learn_what_was_chosen(small, tmp_path, monkeypatch):
    """With the choice made, nobody asks for the runs that were not chosen."""
    asked = []

    def pretend(config, run):
        asked.append(f"{run.parent.name}/{run.name}")
        if run.name == "1":
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_once", pretend)
    monkeypatch.setattr(
        module, "_val", lambda run, metric: {"decode_segmentation_weight-5": 0.9}.get(run.parent.name, 0.5)
    )
    with pytest.raises(KeyboardInterrupt):
        ablate(small, ["decode"], 2, tmp_path, {"method.segmentation_weight": [1, 5, 20]})
    candidates = [f"decode_segmentation_weight-{weight}/0" for weight in (1, 5, 20)]
    assert asked == [*candidates, "decode_segmentation_weight-5/0", "decode_segmentation_weight-5/1"]


@pytest.mark.slow
def test_an_interrupted_ablation_resumes_where_it_stopped(small, tmp_path, monkeypatch):
    trained = []

    def stops_at_the_third(config, run, resume):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(run)
        train(config, run, resume)

    monkeypatch.setattr(module, "train", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ablate(small, ["baseline", "select"], 2, tmp_path)
    assert trained == [tmp_path / "baseline" / "0", tmp_path / "baseline" / "1"]
    (trained[1] / "evaluation.json").unlink()  # it was stopped before this
    weights = [(run / "model.safetensors").stat().st_mtime_ns for run in trained]
    monkeypatch.setattr(module, "train", train)
    ablate(small, ["baseline", "select"], 2, tmp_path)
    assert [(run / "model.safetensors").stat().st_mtime_ns for run in trained] == weights
    assert (tmp_path / "select" / "1" / "evaluation.json").is_file()


@pytest.mark.slow
def test_a_run_that_was_evaluated_before_its_end_is_not_done(coseg_run, tmp_path):
    run = shutil.copytree(coseg_run, tmp_path / "run")
    evaluated, config = run / "evaluation.json", load_config(run / "config.yaml")

    def protocols():
        return json.loads(evaluated.read_text())["protocols"]

    early = protocols()
    config.train.epochs = 2
    run_once(config, run)
    assert epochs_done(run) == 2
    late = protocols()
    assert late != early
    evaluated.write_text("{}")
    os.utime(evaluated, (0, 0))  # as if that had been before the end of training
    run_once(config, run)
    assert protocols() == late
    (run / "last.ckpt").unlink()  # of a run that is done nobody needs it
    os.utime(evaluated, ns=(2**62, 2**62))
    run_once(config, run)
    assert evaluated.stat().st_mtime_ns == 2**62


def test_each_row_is_of_the_settings_of_its_own_variant(small, baseline_run, coseg_run, tmp_path):
    """The common settings are of the method that no variant names, with a trunk that not all variants have."""
    for run, variant in (
        (baseline_run, "baseline"),
        (coseg_run, "coseg"),
        (baseline_run, "baseline_backbone-resnet18"),
    ):
        shutil.copytree(run, tmp_path / variant / "0")
    file = tmp_path / "baseline_backbone-resnet18" / "0" / "config.yaml"
    file.write_text(file.read_text().replace("mobilenet_v2", "resnet18"))
    table = ablate(small, ["baseline", "coseg"], 1, tmp_path).read_text(encoding="utf-8")
    assert "identities, mobilenet_v2, 1 seeds: mean" in table
    assert "Backbones" not in table
    table = ablate(small, ["baseline", "baseline:method.backbone=resnet18"], 1, tmp_path).read_text(encoding="utf-8")
    assert "identities, 1 seeds: mean" in table
    assert "Backbones: mobilenet_v2 (baseline); resnet18 (baseline_backbone-resnet18)." in table
    assert "Initial weights" not in table
    rows = json.loads((tmp_path / "ablation.json").read_text())["rows"]
    assert [(row["backbone"], row["weights"]) for row in rows] == [("mobilenet_v2", "none"), ("resnet18", "none")]
    only = ablate(small, ["baseline:method.backbone=resnet18"], 1, tmp_path).read_text(encoding="utf-8")
    assert "identities, resnet18, 1 seeds: mean" in only


@pytest.mark.parametrize("left", ["", '{"parameters_training": 1', "{}", "[]", "\0\0"])
def test_a_cost_that_a_kill_left_half_written_is_measured_anew(small, baseline_run, tmp_path, left):
    shutil.copytree(baseline_run, tmp_path / "baseline" / "0")
    file = tmp_path / "baseline" / "cost.json"
    file.write_text(left)
    cost = module._cost(Variant.of(small, "baseline"), tmp_path)
    assert cost == _parameters(Variant.of(small, "baseline").config, 8)
    assert Cost(**json.loads(file.read_text())) == cost


def test_a_cost_is_measured_once(small, tmp_path, monkeypatch):
    (tmp_path / "baseline").mkdir()
    cost = Cost(2, 1, seconds_a_step=0.5, bytes=3, device="quiet")
    (tmp_path / "baseline" / "cost.json").write_text(json.dumps(dataclasses.asdict(cost)))
    monkeypatch.setattr(module, "training_cost", lambda *_: pytest.fail("measured again"))
    assert module._cost(Variant.of(small, "baseline"), tmp_path) == cost


def test_what_is_chosen_is_best_on_val_and_a_setting_that_a_method_has_not_is_not_varied(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "run_once", lambda config, run: asked.append(run.parent.name))
    best = {"decode_segmentation_weight-5": 0.9}
    monkeypatch.setattr(module, "_val", lambda run, metric: best.get(run.parent.name, 0.5))
    grid = {"method.segmentation_weight": [1, 5, 20]}
    choice = choose(Variant.of(small, "decode"), grid, tmp_path)
    assert str(choice.best) == "decode_segmentation_weight-5"
    assert asked == [f"decode_segmentation_weight-{weight}" for weight in (1, 5, 20)]
    assert [(tried.mAP, tried.chosen) for tried in choice.tried] == [(0.5, False), (0.9, True), (0.5, False)]
    asked.clear()
    select = Variant.of(small, "select")
    choice = choose(select, grid, tmp_path)
    assert (choice.best, choice.tried) == (select, [])
    assert asked == []
    assert str(choose(Variant.of(small, "baseline"), {"train.lr": [0.1, 0.2]}, tmp_path).best) == "baseline_lr-0.1"


def test_a_grid_has_values_of_any_type(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "run_once", lambda config, run: asked.append((config.method.widths, run.parent.name)))
    monkeypatch.setattr(module, "_val", lambda run, metric: 0.5)
    choose(Variant.of(small, "decode"), {"method.widths": [None, [64, 32]]}, tmp_path)
    assert asked == [(None, "decode_widths-null"), ((64, 32), "decode_widths-[64, 32]")]


@pytest.mark.parametrize("name", ["seed", "method.name"])
def test_what_an_ablation_sets_itself_is_not_in_a_grid(name, small, tmp_path):
    with pytest.raises(CsviError, match=f"{name} can be set by no variant and no grid"):
        ablate(small, ["baseline", "decode"], 2, tmp_path, {name: [1, 5]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train.rl", "method.segmentation_wieght"])
def test_a_setting_that_no_variant_has_is_refused(name, small, tmp_path):
    with pytest.raises(CsviError, match=f"unknown setting '{name}' in the grid"):
        ablate(small, ["baseline", "decode"], 1, tmp_path, {name: [1, 5]})
    assert list(tmp_path.iterdir()) == []


def test_choosing_needs_val_identities(small, tmp_path):
    small.data.train_on = "train+val"
    with pytest.raises(CsviError, match="choosing settings takes val identities"):
        ablate(small, ["baseline"], 1, tmp_path, {"train.lr": [0.1, 0.2]})
    with pytest.raises(CsviError, match="0 seeds"):
        ablate(small, ["baseline"], 0, tmp_path)


def test_choosing_needs_a_validation(small, tmp_path, monkeypatch):
    small.train.validate_every = 0
    with pytest.raises(CsviError, match=r"takes a validation at the end: set --train\.validate_every 1"):
        ablate(small, ["baseline"], 1, tmp_path / "out", {"train.lr": [0.1, 0.2]})
    small.train.validate_every = 1
    without = dataclasses.replace(read_benchmark(small.data), val=[])  # as of RegDB
    monkeypatch.setattr(module, "read_benchmark", lambda data: without)
    with pytest.raises(CsviError, match="has no val identities to choose settings on: leave the grid out"):
        ablate(small, ["baseline"], 1, tmp_path / "out", {"train.lr": [0.1, 0.2]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [("data.train_on=train+val", "takes val identities"), ("train.validate_every=0", "takes a validation at the end")],
)
def test_choosing_needs_the_validation_of_each_variant_that_is_varied(small, tmp_path, monkeypatch, setting, message):
    grid = {"method.segmentation_weight": [1, 20]}
    with pytest.raises(CsviError, match=message):
        ablate(small, ["decode", f"coseg:{setting}"], 1, tmp_path / "out", grid)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module, "choose", lambda *_: pytest.fail("trained"))
    with pytest.raises(pytest.fail.Exception, match="trained"):
        ablate(
            small, [f"baseline:{setting}", "decode"], 1, tmp_path / "out", grid
        )  # the Baseline has nothing to choose


def test_a_run_of_other_images_or_masks_is_not_taken_for_done(config, coseg_run, baseline_run, sysu_root, tmp_path):
    config.data.masks = str(shutil.copytree(sysu_root / "masks", tmp_path / "masks"))
    config.data.root = str(shutil.copytree(sysu_root, tmp_path / "moved"))
    assert is_done(config, coseg_run)
    mask = tmp_path / "masks" / "cam1" / "0001" / "0001.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    with pytest.raises(CsviError, match=r"coseg is of other masks than .*masks: name another folder"):
        is_done(config, coseg_run)
    assert is_done(Variant.of(config, "baseline").config, baseline_run)  # which learns from none
    image = tmp_path / "moved" / "cam1" / "0013" / "0001.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(CsviError, match=r"coseg is of other images than .*moved: name another folder"):
        run_once(config, coseg_run)


@pytest.mark.parametrize("several", [{"devices": 2}, {"nodes": 2}])
def test_several_processes_train_no_run_of_an_ablation(small, tmp_path, several):
    config = dataclasses.replace(small, **several)
    with pytest.raises(CsviError, match=r"train in one process: leave devices and nodes at 1, or first train .*run "):
        run_once(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def assert_beside_the_paper(text, layout, method):
    """Every row of the paper's table, setting by setting, then its model, then ours."""
    ours = find_method("coseg").published.metrics[layout]
    for protocol, compared in COMPARED[layout].items():
        lines = text.partition(f"### {protocol}\n")[2].strip().partition("\n\n")[0].splitlines()
        header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert header == ["method", *PAPER]
        assert rows[:-2] == [[name, *figures] for name, figures in compared.items()]
        assert rows[-2] == ["the paper's model", *(f"{ours[protocol][name]:.2f}" for name in PAPER)]
        assert rows[-1][0] == f"ours, `{method}`"
        assert all(0 <= float(cell.split(" ± ")[0]) <= 100 for cell in rows[-1][1:])
    assert "| HC [24] | 58.6 |" in text
    assert "| the paper's model | 52.6 in training, 32.1 in testing |" in text


@pytest.mark.slow
def test_sysu_beside_the_paper(small, tmp_path):
    small.data.train_on = "train+val"
    text = reproduce("sysu", small, tmp_path / "out", anyway=True).read_text(encoding="utf-8")
    assert_beside_the_paper(text, "sysu", "coseg")
    counts = _parameters(small, 12)
    training, testing = counts.parameters_training / 1e6, counts.parameters_testing / 1e6
    assert f"| ours, `coseg`, 12 identities | {training:.2f} in training, {testing:.2f} in testing |" in text
    assert "Not to the letter of the paper, for the reasons in docs/paper-to-code.md: method.backbone" in text
    for name in ("Baseline", "Baseline+Sel", "Baseline+Seg_ReID", "Baseline+Decoder", "Baseline+CoSeg_ReID"):
        assert f"| {name} † |" in text


def test_data_with_problems_are_not_trained_on(small, tmp_path):
    with pytest.raises(CsviError, match=r"has \d+ problems, such as: .*--anyway continues"):
        reproduce("sysu", small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_regdb_from_the_command_line_without_masks(small, tmp_path, capsys, caplog):
    root = tmp_path / "regdb"
    write_benchmark(root, SynthConfig(layout="regdb", preset="tiny", height=48, width=24, processes=1))
    (root / "masks").rename(tmp_path / "masks")
    small.data.root, small.data.identities, small.data.train_on = "", 4, "train+val"
    save_config(small, tmp_path / "small.yaml")
    assert yaml.safe_load((tmp_path / "small.yaml").read_text())["data"]["layout"] == "sysu"
    arguments = ["reproduce", "regdb", f"--data.root={root}", f"--config={tmp_path / 'small.yaml'}"]
    assert main([*arguments, f"--out={tmp_path / 'out'}"]) == 0
    text = capsys.readouterr().out
    assert "only the Baseline can be trained" in caplog.text
    assert f"csvi masks {root} --out MASKS makes them, --masks MASKS names their folder" in caplog.text
    assert "# Synthetic data, not a reproduction" in text
    assert "over 10 models of ten folds" in text
    assert_beside_the_paper(text, "regdb", "baseline")
