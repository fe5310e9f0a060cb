"""The engine ray makes what this process makes, also when a worker is killed: nothing is doubled or lost."""

import dataclasses
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvi.cli import main
from csvi.config import DataConfig
from csvi.data.check import check_dataset
from csvi.data.crops import Crops, read_crops
from csvi.data.images import TroubleReading
from csvi.errors import CsviError
from csvi.masks.find import find_segmenter
from csvi.masks.make import make_masks
from csvi.ray_engine import RayEngine
from csvi.search.embed import embed_to_file
from csvi.search.embedder import open_embedder
from csvi.search.features import read_features
from csvi.search.fill import Choices, add_crops, gallery_for_crops
from csvi.signals import terminate

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'csvi[ray]'")
ENGINE = RayEngine(workers=2, worker_cpus=1)
SEGMENTER = """
import numpy as np
from csvi.masks.segmenter import Segmenter

class Bright(Segmenter):
    name = "bright"

    def probabilities(self, images):
        return [(image[..., 0] / 255).astype(np.float32) for image in images]
"""


@dataclasses.dataclass(frozen=True)
class Killing(Crops):
    """Crops that kill the first worker that reads this one."""

    path: str = ""
    mark: Path = Path()
    """File that is made then, with the number of the process."""

    def load(self, record):
        if record.path == self.path and not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(record)


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    """Ray on this machine, with two cores; its workers find a module `bright`."""
    ray = pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("modules")
    (folder / "bright.py").write_text(SEGMENTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(folder)
        ray.init("local", num_cpus=2, log_to_driver=False)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray
        ray.shutdown()


@pytest.fixture
def small_pieces(monkeypatch):
    """Thirty batches in fifteen pieces."""
    monkeypatch.setattr("csvi.search.embed.PIECE", 16)
    monkeypatch.setattr("csvi.search.embed.BATCH", 8)
    monkeypatch.setattr("csvi.masks.make.BATCH", 16)
    monkeypatch.setattr("csvi.data.looks.PIECE", 50)


def crops_of(root, kind=Crops, **more):
    crops = read_crops(DataConfig(root=str(root)))
    return kind(**{field.name: getattr(crops, field.name) for field in dataclasses.fields(Crops)}, **more)


def killing(root, tmp_path):
    crops = crops_of(root)
    return crops_of(root, Killing, path=crops.records[100].path, mark=tmp_path / "killed")


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.long  # workers that import torch
@pytest.mark.usefixtures("ray", "real_trunk", "small_pieces")
def test_embeddings_are_those_of_this_process_when_a_worker_is_killed(real_run, sysu_root, tmp_path):
    embedder = open_embedder(real_run)
    embed_to_file(embedder, crops_of(sysu_root), tmp_path / "here.npz")
    made = embed_to_file(embedder, killing(sysu_root, tmp_path), tmp_path / "ray.npz", ray=ENGINE)
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    here, there = (read_features(tmp_path / f"{name}.npz") for name in ("here", "ray"))
    assert (made.new, made.left_out, len(there)) == (240, {}, 240)
    assert there.same_columns(here)
    assert there.facts == here.facts
    np.testing.assert_allclose(there.embedding, here.embedding, rtol=0, atol=1e-6)


@pytest.mark.long
@pytest.mark.usefixtures("ray", "real_trunk", "small_pieces")
def test_a_gallery_is_the_one_of_this_process_when_a_worker_is_killed(real_run, sysu_root, tmp_path):
    pytest.importorskip("milvus_lite")
    embedder, crops = open_embedder(real_run), killing(sysu_root, tmp_path)
    half = dataclasses.replace(crops_of(sysu_root), records=crops.records[:90])
    with gallery_for_crops(str(tmp_path / "gallery.db"), crops, embedder, Choices()) as gallery:
        assert add_crops(gallery, half, embedder).new == 90
        added = add_crops(gallery, crops, embedder, ray=ENGINE)
        assert (added.new, added.there, added.left_out) == (150, 90, {})
        assert (tmp_path / "killed").exists()
        assert sorted(entry.path for entry in gallery.entries()) == sorted(r.path for r in crops.records)


@pytest.mark.usefixtures("ray", "small_pieces")
def test_masks_are_those_of_this_process_when_a_worker_is_killed(sysu_root, tmp_path):
    segmenter = find_segmenter("bright:Bright")
    make_masks(crops_of(sysu_root), tmp_path / "here", segmenter)
    made = make_masks(killing(sysu_root, tmp_path), tmp_path / "ray", segmenter, ENGINE)
    assert (tmp_path / "killed").exists()
    assert made.new == len(made.lines) == 240
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    again = make_masks(crops_of(sysu_root), tmp_path / "ray", segmenter, ENGINE)
    assert (again.new, again.lines) == (0, made.lines)


@pytest.mark.usefixtures("ray", "small_pieces")
def test_a_check_finds_what_this_process_finds(sysu_root, tmp_path):
    folder = tmp_path / "data"
    for n in range(120):
        file = folder / ("visible", "infrared")[n % 2] / f"{n // 4}" / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 48), (2 * n, 5, 7)).save(file)
    file.write_bytes(file.read_bytes()[:-30])
    here, there = (check_dataset(DataConfig(str(folder)), "folder", True, ray) for ray in (None, ENGINE))
    assert any(finding.kind == "broken" for finding in there.problems)
    assert there == here


@pytest.mark.usefixtures("ray")
def test_results_have_the_order_of_the_pieces():
    def slow_at_first():
        return lambda piece: time.sleep(0.3 * (piece < 2)) or piece**2

    assert list(ENGINE.map(slow_at_first, list(range(12)), [])) == [piece**2 for piece in range(12)]


@pytest.mark.usefixtures("ray")
def test_what_is_wrong_in_a_worker_is_one_sentence():
    def fails(piece):
        raise TroubleReading(Path("/crops/1.png"), f"could not be read {piece}")  # which does not pickle

    with pytest.raises(CsviError, match=r"^cannot read the image /crops/1.png: it could not be read this time$"):
        list(ENGINE.map(lambda: fails, ["this time"], []))
    with pytest.raises(CsviError, match=r"^/nowhere is not there on .*: all machines of Ray must have it"):
        list(ENGINE.map(lambda: abs, [1], [Path("/nowhere")]))


@pytest.mark.long
@needs_ray
@pytest.mark.usefixtures("real_trunk")
def test_the_command_starts_ray_and_stops_it(real_run, sysu_root, tmp_path, capsys):
    import ray

    ray.shutdown()
    options = ["--out", str(tmp_path / "f.npz"), "--engine", "ray", "--address", "local", "--workers", "1"]
    assert main(["embed", str(sysu_root), "--run", str(real_run), *options]) == 0
    assert signal.getsignal(signal.SIGTERM) is terminate  # Ray puts its own there
    assert "embedded: 240 images, 48 numbers of 32 bits each; 240 now" in capsys.readouterr().out
    assert not ray.is_initialized()


@needs_ray
def test_an_address_where_nobody_answers_is_one_sentence(sysu_root, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(CsviError, match=r"cannot connect to Ray 127\.0\.0\.1:1: .*refused"):
        list(RayEngine("127.0.0.1:1").map(lambda: abs, [1], []))


class Slow:
    """Ray that does not start in time so often."""

    def __init__(self, failures):
        self.failures = failures

    def is_initialized(self):
        return False

    def init(self, *_, **__):
        self.failures -= 1
        if self.failures >= 0:
            raise RuntimeError("too slow")

    def shutdown(self):
        self.failures = None


def test_ray_that_does_not_start_in_time_is_started_once_more():
    ray = Slow(1)
    with RayEngine("local")._connected(ray):
        assert ray.failures == -1
    assert ray.failures is None
    with (
        pytest.raises(CsviError, match=r"^cannot connect to Ray local: too slow$"),
        RayEngine("local")._connected(Slow(2)),
    ):
        pass


class Cluster:
    """Four machines, of which one is gone, in place of Ray."""

    @staticmethod
    def nodes():
        sizes = [(48, 4), (10, 2), (20, 0), (99, 9)]
        nodes = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in sizes]
        return [*nodes[:-1], nodes[-1] | {"Alive": False}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"worker_gpus": 0, "worker_cpus": 64},
            "no machine of Ray has room for a worker of 64 CPUs: the largest",
        ),
        ({"worker_gpus": 5}, "no machine of Ray has room for a worker of 5 GPUs: the largest has 4$"),
    ],
)
def test_workers_for_which_there_is_no_room_are_not_waited_for(options, message):
    with pytest.raises(CsviError, match=message):
        RayEngine(**options)._sizes(Cluster, pieces=100)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (6, 5, 1)),  # a GPU each; the third machine has none, and the second few cores
        ({"worker_gpus": 0.1}, (60, 1, 0.1)),
        ({"worker_gpus": 0}, (78, 1, 0)),
        ({"worker_gpus": 0, "worker_cpus": 8}, (9, 8, 0)),
        ({"workers": 3}, (3, 5, 1)),
    ],
)
def test_workers_fit_on_the_machines(options, expected):
    assert RayEngine(**options)._sizes(Cluster, pieces=100) == expected
    assert RayEngine(**options)._sizes(Cluster, pieces=2)[0] == 2


def test_without_ray_the_extra_is_named(sysu_root, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["check", str(sysu_root), "--engine", "ray"]) == 1
    assert "the engine ray needs ray: pip install 'csvi[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "--workers is for --engine ray"),
        (["--engine", "ray", "--worker_cpus", "0"], "--worker_cpus 0 must be at least 1"),
    ],
)
def test_wrong_options_are_one_sentence(sysu_root, capsys, options, message):
    assert main(["check", str(sysu_root), *options]) == 1
    assert message in capsys.readouterr().err
