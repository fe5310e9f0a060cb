"""What a report, a figure and a comparison take over from an evaluation, and what they draw on."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml

from csvi.analysis.report import write_report
from csvi.cli import main
from csvi.runs import Evaluation, Run
from csvi.runs.embeddings import embed


@pytest.fixture
def run(coseg_run, tmp_path):
    """A run that was trained, and not evaluated."""
    run = shutil.copytree(coseg_run, tmp_path / "run")
    for name in ("evaluation.json", "embeddings.npz"):
        (run / name).unlink()
    return run


@pytest.fixture
def counted(monkeypatch):
    """How often test images were embedded."""
    calls = []

    def count(*arguments):
        calls.append(arguments)
        return embed(*arguments)

    monkeypatch.setattr("csvi.runs.embeddings.embed", count)
    return calls


@pytest.mark.slow
def test_images_are_embedded_once(run, counted, capsys):
    assert main(["evaluate", str(run)]) == 0
    assert len(counted) == 1
    evaluation = (run / "evaluation.json").read_text()
    for command in (
        ["report", run],
        ["report", run, "--figures", "tsne"],
        ["figure", "tsne", run],
    ):
        assert main([str(argument) for argument in command]) == 0
    assert len(counted) == 1
    assert (run / "evaluation.json").read_text() == evaluation
    assert main(["evaluate", str(run), "--rerank"]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert len(counted) == 1
    protocols = [json.loads(text)["protocols"] for text in (evaluation, (run / "evaluation.json").read_text())]
    assert protocols[0] == protocols[1]


def test_features_are_what_an_evaluation_leaves(run, sysu_root, capsys):
    assert main(["evaluate", str(run)]) == 0
    assert main(["evaluate", f"--features={run / 'embeddings.npz'}", f"--data.root={sysu_root}"]) == 0
    evaluations = [json.loads((run / f"{name}.json").read_text()) for name in ("evaluation", "embeddings.evaluation")]
    assert evaluations[0]["protocols"] == evaluations[1]["protocols"]
    assert main(["compare", str(run), str(run / "embeddings.evaluation.json")]) == 0
    assert "+0.0 [+0.0, +0.0]" in capsys.readouterr().out
    plain = (run / "embeddings.evaluation.json").read_text()
    assert main(["evaluate", f"--features={run / 'embeddings.npz'}", f"--data.root={sysu_root}", "--expand=2"]) == 0
    assert (run / "embeddings.evaluation.json").read_text() == plain
    assert "query expansion (2" in (run / "embeddings.evaluation-query-expansion-2.json").read_text()


@pytest.mark.slow
def test_a_report_of_a_run_that_was_not_evaluated(run, counted, capsys):
    assert main(["report", str(run), "--figures", "tsne"]) == 0
    assert len(counted) == 1
    assert (run / "evaluation.json").is_file()
    assert (run / "embeddings.npz").is_file()


@pytest.mark.slow
def test_figures_of_a_report_take_its_masks(run, sysu_root, tmp_path, capsys):
    """Where the dataset has none of its own."""
    root = shutil.copytree(sysu_root, tmp_path / "data")
    (root / "masks").rename(tmp_path / "masks")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"] |= {"root": str(root), "cache": str(tmp_path / "cache")}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["report", str(run), "--figures", "cosegmentation"]) == 1
    assert "not all test images" in capsys.readouterr().err
    masks = f"--data.masks={tmp_path / 'masks'}"
    assert main(["report", str(run), masks, "--figures", "cosegmentation", "heatmaps"]) == 0
    page = (run / "report.html").read_text()
    assert page.count('class="figure"') == 2
    assert page.count('class="triple"') == 10
    (found,) = json.loads((run / "figures" / "cosegmentation.json").read_text())
    assert found["first"]["constant"] > 0.5
    assert set(json.loads((run / "evaluation.json").read_text())["masks"]) == {"visible", "infrared"}


@pytest.mark.slow
def test_a_report_does_without_masks_that_cannot_be_drawn_any_more(coseg_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(coseg_run, tmp_path / "run")
    kept = Evaluation.load(run)
    assert kept.masks
    opened = Run.open(run)
    opened.benchmark = replace(opened.benchmark, test=[replace(r, mask=None) for r in opened.benchmark.test])
    monkeypatch.setattr("csvi.analysis.report.evaluated", lambda run: kept)
    assert 'class="triple"' not in write_report(opened).read_text()
    (run / "method.safetensors").unlink()
    page = write_report(Run.open(run)).read_text()
    assert "mask IoU, visible" in page
    assert 'class="triple"' not in page
    monkeypatch.undo()
    assert main(["report", str(run)]) == 0


def test_a_report_does_not_load_the_network_for_its_name(coseg_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(coseg_run, tmp_path / "run")
    (run / "method.safetensors").unlink()
    monkeypatch.setattr("csvi.runs.run.load_net", lambda path: pytest.fail("loaded"))
    assert main(["report", str(run)]) == 0
    assert "SYSU-MM01 · coseg, mobilenet_v2, seed 0" in (run / "report.html").read_text()


@pytest.mark.parametrize(("protocol", "said"), [("indoor-search multi-shot", True), ("indoor-search", False)])
def test_multi_shot_is_explained_where_there_is_any(coseg_run, tmp_path, monkeypatch, protocol, said):
    kept = Evaluation.load(coseg_run)
    kept = replace(kept, protocols=[kept.protocols[0], replace(kept.protocols[1], protocol=protocol)], masks={})
    monkeypatch.setattr("csvi.analysis.report.evaluated", lambda run: kept)
    run = Run.open(shutil.copytree(coseg_run, tmp_path / "run"))
    assert ("Multi-shot takes ten images" in write_report(run).read_text()) == said
