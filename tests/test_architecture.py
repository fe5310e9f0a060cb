"""docs/extending.md: its four worked examples run as they stand there; and imports go downwards alone."""

import ast
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvi.cli import main
from csvi.evaluate.definition import METRICS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SMALL = (
    "--data.height 48 --data.width 24 --data.identities 4 --data.images 2 --data.workers 0 --train.epochs 1 "
    "--precision 32-true"
)


def example(heading):
    """The module, and the commands, below a heading of the page."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    module = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    commands = re.search(r"```\n(csvi .*?)```", section, re.DOTALL)
    return module, commands[1].splitlines() if commands else []


def run(command, folder, root, cache_folder):
    """One command of the page, on small data."""
    words = shlex.split(command.replace("ROOT", str(root)).replace("runs/", f"{folder}/runs/"))[1:]
    if words[0] in ("train", "ablate"):
        words += [*shlex.split(SMALL), "--data.cache", str(cache_folder)]
    if words[0] == "ablate":
        words += ["--seeds", "1", "--out", f"{folder}/ablation", "--method.backbone", "resnet18"]
    if "baseline" in words or (words[0] == "train" and "--method" not in words):
        words += ["--method.weights", "none", "--method.parts", "2", "--method.part_dim", "8"]
        words += ["--method.backbone", "resnet18"] if words[0] == "train" else []
    assert main(words) == 0, command


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder that Python looks in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_add_a_method(here, sysu_root, cache_folder, monkeypatch):
    module, commands = example("Add a method")
    (here / "ours.py").write_text(module)
    monkeypatch.setattr("csvi.analysis.ablate.training_cost", lambda config, identities: cost())
    for command in commands:
        run(command, here, sysu_root, cache_folder)
    assert json.loads((here / "runs" / "ours" / "config.json").read_text())["method"] == "ours:Ours"
    table = (here / "ablation" / "ablation.md").read_text()
    assert "| ours.Ours |" in table
    assert "identities, 1 seeds" in table
    assert "Backbones: resnet18 (baseline); no such setting (ours.Ours)." in table
    assert "Initial weights: none (baseline); no such setting (ours.Ours)." in table


def cost():
    from csvi.train.cost import Cost

    return Cost(1, 1, 1.0, 1, "none")


@pytest.mark.slow
def test_add_a_dataset_layout(here, sysu_root, cache_folder, capsys):
    module, commands = example("Add a dataset layout")
    (here / "corridor.py").write_text(module)
    data = here / "data"
    for camera, letter in ((1, "d"), (3, "n")):
        for person in (sysu_root / f"cam{camera}").iterdir():
            for file in person.iterdir():
                (data / person.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, data / person.name / f"{letter}{camera}_{file.name}")
    for command in commands:
        run(command, here, data, cache_folder)
    printed = capsys.readouterr().out
    assert "Corridor, all images in the gallery" in printed
    file = next(data.glob("*/d*.jpg"))
    file.rename(file.with_name("e1_0001.jpg"))
    assert main(["check", str(data), "--data.layout", "corridor:Corridor"]) == 1
    assert f"{file.parent.name}/e1_0001.jpg is not named like" in capsys.readouterr().err
    assert json.loads((here / "runs" / "corridor" / "evaluation.json").read_text())["layout"] == "corridor:Corridor"


def test_add_a_metric(monkeypatch):
    module, _ = example("Add a metric")
    monkeypatch.setattr("csvi.evaluate.definition.METRICS", METRICS)
    before = dict(METRICS)
    try:
        exec(module, {"METRICS": METRICS})
        from csvi.evaluate import score

        found = score([[0.1, 0.2, 0.3]], [7], [5, 7, 7]).metrics
        assert found["MRR"] == 1 / 2
        assert found["mAP"] == (1 / 2 + 2 / 3) / 2
    finally:
        METRICS.clear()
        METRICS.update(before)


@pytest.mark.slow
def test_add_a_segmenter(here, sysu_root, cache_folder):
    module, (make, train) = example("Add a segmenter")
    (here / "one_shape.py").write_text(module)
    shape = np.zeros((12, 6), np.uint8)
    shape[1:11, 1:5] = 255
    Image.fromarray(shape).save(here / "shape.png")
    run(make, here, sysu_root, cache_folder)
    stretched = np.asarray(Image.fromarray(shape).resize((24, 48))) > 127
    masks = list((here / "MASKS").glob("cam*/*/*.png"))
    assert len(masks) == 240
    for mask in masks:
        np.testing.assert_array_equal(np.asarray(Image.open(mask)) > 127, stretched)
    run(train, here, sysu_root, cache_folder)
    assert (here / "runs" / "one-shape" / "model.safetensors").exists()


FLOORS = [
    {"cli"}, {"commands"}, {"search", "masks"}, {"export"}, {"analysis"}, {"train"}, {"runs"}, {"methods"}, {"synth"},
    {"data"}, {"model"}, {"losses", "evaluate"},
]  # fmt: skip
"""Rooms from the top down; what is in none of them is below."""


def test_imports_go_downwards_alone():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    upwards = []
    for file in (ROOT / "src" / "csvi").rglob("*.py"):
        room = file.relative_to(ROOT / "src" / "csvi").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                parts = module.split(".")
                if parts[0] == "csvi" and len(parts) > 1 and parts[1] != room:
                    if room in ("__main__", "__init__"):  # the program and `csvi.load`, above all floors
                        continue
                    if floor.get(parts[1], 99) <= floor.get(room, 99) and parts[1] in floor:
                        upwards.append(f"{file.relative_to(ROOT)} imports {module}")
    assert upwards == []
