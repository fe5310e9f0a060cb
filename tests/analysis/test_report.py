"""The report says of each gallery image what the protocol says of it."""

import base64
import dataclasses
import io
import shutil

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table

from csvi.analysis import report
from csvi.analysis.curves import loss_curves, validation_curves
from csvi.analysis.make_figure import FIGURES, Kind, make_figure
from csvi.config import DataConfig
from csvi.data import Benchmark, ImageRecord, Modality
from csvi.data.images import ORIENTATION
from csvi.data.sysu import Sysu
from csvi.errors import CsviError
from csvi.evaluate.protocols import Protocol, Trial
from csvi.runs import Options, Run
from csvi.runs.evaluation import evaluated
from csvi.runs.metrics_log import read_metrics


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A cam3 probe of identity 7 and four visible images, each a step farther from it."""
    monkeypatch.setattr(report, "_thumbnail", lambda run, record: record.path)
    seen = [(7, 3), (8, 1), (7, 2), (7, 4), (8, 2)]
    test = [
        ImageRecord(f"{n}", identity, camera, Modality.INFRARED if camera == 3 else Modality.VISIBLE)
        for n, (identity, camera) in enumerate(seen)
    ]
    run = Run("", Options(), DataConfig(), None)
    run.benchmark, run.embeddings = Benchmark("", tmp_path, [], [], test), torch.arange(5.0)[:, None]
    return run


def test_a_ranked_list_marks_right_wrong_and_removed(run):
    protocol = Protocol("", Sysu.rules, "seeded", [Trial([0], [4, 3, 2, 1])])
    ranked = report.ranked_list(0, protocol, run)
    assert ranked.label == "id 7, cam3"
    assert [(item.image, item.kind, item.rank) for item in ranked.gallery] == [
        ("1", "wrong", 1),
        ("2", "removed", None),  # cameras 2 and 3 stand at the same place
        ("3", "right", 2),
        ("4", "removed", None),
    ]


def test_a_ranked_list_has_so_many_that_count(run):
    protocol = Protocol("", Sysu.rules, "seeded", [Trial([0], [1, 2, 3, 4])])
    assert [item.image for item in report.ranked_list(0, protocol, run, length=1).gallery] == ["1"]


def test_ranked_lists_are_of_the_first_protocol_that_has_a_result(coseg_run, tmp_path, monkeypatch):
    run = Run.open(shutil.copytree(coseg_run, tmp_path / "run"))
    evaluation = dataclasses.replace(evaluated(run), protocols=evaluated(run).protocols[2:], masks={})
    monkeypatch.setattr(report, "evaluated", lambda run: evaluation)
    names, empty = [], report.RankedList("", "", [])
    monkeypatch.setattr(report, "ranked_list", lambda query, protocol, run: names.append(protocol.name) or empty)
    report.write_report(run)
    assert set(names) == {evaluation.protocols[0].protocol}


@dataclasses.dataclass
class Number:
    value: int = 0


def test_figures_of_other_weights_or_data_are_left_out(coseg_run, sysu_root, tmp_path, monkeypatch, caplog):
    kind = Kind(lambda runs, seed: Number(), lambda *_: Figure(), lambda number: Table(), "A caption.")
    monkeypatch.setitem(FIGURES, "tsne", kind)
    folder, other = shutil.copytree(coseg_run, tmp_path / "run"), shutil.copytree(sysu_root, tmp_path / "other")
    image = other / "cam1" / "0013" / "0001.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    own, on_other = Run.open(folder), Run.open(folder, Options(root=other))
    make_figure("tsne", [on_other])
    assert report.drawn_figures(own, folder) == []
    assert not caplog.messages
    make_figure("tsne", [own])
    names = {f"{stem}.{suffix}" for stem in ("tsne", "tsne-on-other") for suffix in ("png", "svg", "json")}
    assert {file.name for file in (folder / "figures").iterdir()} == names
    for run in (own, on_other):
        assert [caption for _, caption in report.drawn_figures(run, folder)] == ["A caption."]
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes([*weights.read_bytes()[:-1], 7]))
    assert report.drawn_figures(own, folder) == []
    assert "tsne.png is left out, it is of other weights" in caplog.text


def test_images_are_shown_as_the_network_sees_them(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # lies on its side
    Image.new("RGB", (48, 24)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.full((48, 24), 2**15, np.uint16)).save(tmp_path / "16 bits.png")
    run = Run("", Options(), DataConfig(visible_range="0,65535"), None)
    run.benchmark = Benchmark("", tmp_path, [], [], [])
    for name, grey in (("turned.jpg", 0), ("16 bits.png", 128)):
        uri = report._thumbnail(run, ImageRecord(name, 1, 1, Modality.VISIBLE))
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as shown:
            assert shown.size == (24, 48)
            assert shown.getpixel((12, 24)) == pytest.approx((grey, grey, grey), abs=2)


def test_curves_read_what_training_wrote(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "train/loss": 3.0, "train/identity": 2.0, "train/lr": 0.1, "train/images_per_second": 9}\n'
        '{"step": 2, "train/loss": 2.0, "train/identity": 1.0, "train/lr": 0.1, "train/images_per_second": 9}\n'
    )
    assert read_metrics(tmp_path, "train/loss") == ([1, 2], [3.0, 2.0])
    assert "identity" in loss_curves(tmp_path)
    assert "images_per_second" not in loss_curves(tmp_path)
    assert validation_curves(tmp_path) is None
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "val/R1": 0.5, "val/mAP": 0.4, "val/mINP": 0.3}\n')
    assert (validation_curves(tmp_path) or "").startswith("<svg")


def test_a_loss_term_that_begins_later_is_drawn(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "train/loss": 2.0, "train/identity": 2.0}\n{"step": 2, "val/R1": 0.5}\n'
        '{"step": 3, "train/loss": 3.0, "train/identity": 2.0, "train/segmentation": 1.0}\n'
    )
    assert "segmentation" in loss_curves(tmp_path)


LINE = b'{"step": 1, "train/loss": 3.0, "val/R1": 0.5}\n'


def test_a_line_that_a_kill_broke_off_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(LINE + b'{"step": 2, "train/lo\xff')
    assert read_metrics(tmp_path, "train/loss") == ([1], [3.0])
    (tmp_path / "metrics.jsonl").write_bytes(LINE[:20])
    assert read_metrics(tmp_path, "train/loss") == ([], [])
    assert loss_curves(tmp_path) is None


@pytest.mark.parametrize(
    "line",
    [b"", b"text", b"\xff", b"[1]", b"5", b"null", b'{"val/R1": 1}', b'{"step": null}', b'{"step": 2, "val/R1": "a"}',
     b'{"step": 1e999}', b'{"step": 2, "val/R1": 1' + 400 * b"0" + b"}", 3000 * b"["],
)  # fmt: skip
@pytest.mark.parametrize("read", [loss_curves, validation_curves])
def test_damaged_metrics_are_said_in_one_sentence(tmp_path, line, read):
    (tmp_path / "metrics.jsonl").write_bytes(LINE + line + b"\n" + LINE)
    with pytest.raises(CsviError, match=r"metrics\.jsonl is damaged or not of csvi"):
        read(tmp_path)
