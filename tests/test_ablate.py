"""The ablation and the reproduction from nothing to tables, on small data."""

import dataclasses
import json
import os

import pytest
import yaml

from csvi import ablate as module
from csvi.ablate import Variant, ablate, choose, run_once
from csvi.cli import main
from csvi.config import SynthConfig, flatten, save_config
from csvi.errors import CsviError
from csvi.evaluate.runs import evaluate_run, save_evaluation
from csvi.model.network import AUXILIARIES, build_network
from csvi.reproduce import TABLES, reproduce
from csvi.synth import write_benchmark
from csvi.train.checkpoint import epochs_done
from csvi.train.cost import Cost
from csvi.train.loop import train


@pytest.fixture
def small(config, monkeypatch):
    config.train.validate_every = 1
    monkeypatch.setattr(module, "training_cost", lambda config, identities: _parameters(config, identities))
    return config


def _parameters(config, identities):
    """The cost that needs no measurement; tests/train/test_cost.py measures."""
    network = build_network(config, identities)
    sizes = [sum(p.numel() for p in of.parameters()) for of in (network, network.net)]
    return Cost(*sizes, seconds_a_step=1.0, bytes=2**30, device="none")


def test_a_variant_is_an_auxiliary_and_settings_of_its_own(small):
    variant = Variant.parse("coseg:coseg.weights_from=leave-one-out,coseg.head=false,loss.segmentation=20")
    assert str(variant) == "coseg_weights_from-leave-one-out_head-false_segmentation-20"
    applied = variant.applied(small, 3)
    changed = {name: value for name, value in flatten(applied).items() if value != flatten(small)[name]}
    assert changed == {"coseg.weights_from": "leave-one-out", "coseg.head": False, "loss.segmentation": 20, "seed": 3}
    assert small.seed == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosegg", "unknown variant 'cosegg': choose one of none"),
        ("coseg:head", "must be name=value"),
        ("coseg:coseg.haed=1", "unknown setting 'coseg.haed'"),
        ("coseg:coseg.weights_from=nowhere", "weights_from"),
        ("coseg:coseg.head_weight=-1", "head_weight is -1"),
    ],
)
def test_bad_variants(text, message, small):
    with pytest.raises(CsviError, match=message):
        Variant.parse(text).applied(small, 0)


def test_all_variants_to_a_table_and_nothing_twice(small, tmp_path, monkeypatch):
    grid = {"loss.segmentation": [1, 20]}
    file = ablate(small, list(AUXILIARIES), 2, tmp_path / "out", grid)
    runs = {f"{path.parent.parent.name}/{path.parent.name}" for path in (tmp_path / "out").rglob("model.safetensors")}
    masked = ("segment", "decode", "coseg", "coseg+")
    assert {f"{variant}/{seed}" for variant in ("none", "select") for seed in (0, 1)} <= runs
    assert {f"{variant}_segmentation-{weight}/0" for variant in masked for weight in (1, 20)} <= runs
    assert len(runs) == 4 + 4 * 3
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [row["variant"] for row in found["rows"]] == list(AUXILIARIES)
    assert [bool(row["differences"]) for row in found["rows"]] == [False, True, True, True, True, True]
    assert all(len(row["figures"]["R1"]) == 2 for row in found["rows"])
    testing = {row["variant"]: row["cost"]["parameters_testing"] for row in found["rows"]}
    assert testing["coseg"] == testing["decode"] == testing["select"] == testing["none"] < testing["segment"]
    best = {}
    for tried in found["tried"]:
        best.setdefault(tried["variant"], []).append((tried["mAP"], tried["chosen"]))
    assert list(best) == list(masked)
    for candidates in best.values():
        assert max(candidates)[1]
        assert sum(chosen for _, chosen in candidates) == 1
    text = file.read_text()
    assert text.startswith("# ablation on SYSU-MM01")
    assert "| coseg | " in text
    assert next(line for line in text.splitlines() if line.startswith("| coseg+ ")).endswith("|  |  |")  # ours
    assert "Baseline+CoSeg_ReID | 70.13 / 65.32" in text
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 10_000

    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    assert ablate(small, list(AUXILIARIES), 2, tmp_path / "out", grid).read_text() == text
    small.train.lr = 0.5
    with pytest.raises(CsviError, match=r"none/0 under other settings \(train.lr was"):
        ablate(small, ["none"], 1, tmp_path / "out")


def test_an_interrupted_ablation_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    trained = []

    def stops_at_the_third(config, run, resume):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(run)
        train(config, run, resume)

    monkeypatch.setattr(module, "train", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ablate(small, ["none", "select"], 2, tmp_path)
    assert trained == [tmp_path / "none" / "0", tmp_path / "none" / "1"]
    (trained[1] / "evaluation.json").unlink()  # it was stopped before this
    weights = [(run / "model.safetensors").stat().st_mtime_ns for run in trained]
    monkeypatch.setattr(module, "train", train)
    ablate(small, ["none", "select"], 2, tmp_path)
    assert [(run / "model.safetensors").stat().st_mtime_ns for run in trained] == weights
    assert (tmp_path / "select" / "1" / "evaluation.json").is_file()


def test_a_run_that_was_evaluated_before_its_end_is_not_done(small, tmp_path):
    run, evaluated = tmp_path / "run", tmp_path / "run" / "evaluation.json"

    def protocols():
        return json.loads(evaluated.read_text())["protocols"]

    train(small, run)
    save_evaluation(evaluate_run(str(run)).evaluation, run)
    early = protocols()
    small.train.epochs = 2
    run_once(small, run)
    assert epochs_done(run) == 2
    late = protocols()
    assert late != early
    evaluated.write_text("{}")
    os.utime(evaluated, (0, 0))  # as if that had been before the end of training
    run_once(small, run)
    assert protocols() == late
    (run / "last.ckpt").unlink()  # of a run that is done nobody needs it
    os.utime(evaluated, ns=(2**62, 2**62))
    run_once(small, run)
    assert evaluated.stat().st_mtime_ns == 2**62


@pytest.mark.parametrize("left", ["", '{"parameters_training": 1', "{}", "[]", "\0\0"])
def test_a_cost_that_a_kill_left_half_written_is_measured_anew(small, tmp_path, left):
    (tmp_path / "none" / "0").mkdir(parents=True)
    (tmp_path / "none" / "0" / "config.json").write_text('{"identities": 8}')
    file = tmp_path / "none" / "cost.json"
    file.write_text(left)
    cost = module._cost(Variant("none"), small, tmp_path)
    assert cost == _parameters(Variant("none").applied(small, 0), 8)
    assert Cost(**json.loads(file.read_text())) == cost


def test_a_cost_is_measured_once(small, tmp_path, monkeypatch):
    (tmp_path / "none").mkdir()
    cost = Cost(2, 1, seconds_a_step=0.5, bytes=3, device="quiet")
    (tmp_path / "none" / "cost.json").write_text(json.dumps(dataclasses.asdict(cost)))
    monkeypatch.setattr(module, "training_cost", lambda *_: pytest.fail("measured again"))
    assert module._cost(Variant("none"), small, tmp_path) == cost


def test_what_is_chosen_is_best_on_val_and_a_setting_that_is_not_read_is_not_varied(small, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(module, "run_once", lambda config, run: tried.append(run.parent.name))
    monkeypatch.setattr(module, "_val", lambda run, figure: {"decode_segmentation-5": 0.9}.get(run.parent.name, 0.5))
    grid = {"loss.segmentation": [1, 5, 20]}
    assert str(choose(small, Variant("decode"), grid, tmp_path)) == "decode_segmentation-5"
    assert tried == ["decode_segmentation-1", "decode_segmentation-5", "decode_segmentation-20"]
    tried.clear()
    assert str(choose(small, Variant("select"), grid, tmp_path)) == "select"
    assert tried == []
    assert str(choose(small, Variant("none"), {"train.lr": [0.1, 0.2]}, tmp_path)) == "none_lr-0.1"


def test_choosing_needs_val_identities(small, tmp_path):
    small.data.train_on = "train+val"
    with pytest.raises(CsviError, match="choosing settings takes val identities"):
        ablate(small, ["none"], 1, tmp_path, {"train.lr": [0.1, 0.2]})
    with pytest.raises(CsviError, match="0 seeds"):
        ablate(small, ["none"], 0, tmp_path)


def test_sysu_beside_the_paper(small, tmp_path):
    small.data.train_on = "train+val"
    text = reproduce("sysu", small, tmp_path / "out", anyway=True).read_text()
    for protocol, figures in TABLES["sysu"].items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {protocol} |")]
        assert [float(cell) for cell in row.split("|")[3:-1:2]] == list(figures)
    for name in ("Baseline", "Baseline+Sel", "Baseline+Seg_ReID", "Baseline+Decoder", "Baseline+CoSeg_ReID"):
        assert f"| {name} |" in text


def test_data_with_problems_are_not_trained_on(small, tmp_path):
    with pytest.raises(CsviError, match=r"has \d+ problems, such as: .*--anyway goes on"):
        reproduce("sysu", small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CsviError, match="no figures on 'llcm'"):
        reproduce("llcm", small, tmp_path / "out")


def test_regdb_from_the_command_line_without_masks(small, tmp_path, capsys, caplog):
    root = tmp_path / "regdb"
    write_benchmark(root, SynthConfig(layout="regdb", preset="tiny", height=48, width=24, processes=1))
    (root / "masks").rename(tmp_path / "masks")
    small.data.root, small.data.identities, small.data.train_on = "", 4, "train+val"
    save_config(small, tmp_path / "small.yaml")
    assert yaml.safe_load((tmp_path / "small.yaml").read_text())["data"]["dataset"] == "sysu"
    arguments = ["reproduce", "regdb", f"--data={root}", f"--settings={tmp_path / 'small.yaml'}"]
    assert main([*arguments, f"--out={tmp_path / 'out'}"]) == 0
    text = capsys.readouterr().out
    assert "only the Baseline can be trained" in caplog.text
    assert "# Synthetic data, not a reproduction" in text
    assert "over 10 models of ten splits" in text
    for protocol, figures in TABLES["regdb"].items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {protocol} |")]
        assert [float(cell) for cell in row.split("|")[3:-1:2]] == list(figures)
