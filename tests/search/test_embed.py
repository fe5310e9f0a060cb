"""`csvi embed`: the embeddings of an evaluation, in pieces that can be killed, and every image accounted for."""

import csv
import json
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
from PIL import Image

from csvi.cli import main
from csvi.config import DataConfig
from csvi.data.crops import read_crops
from csvi.data.images import TroubleReading
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.runs import Evaluation, Run
from csvi.search.embed import embed_to_file
from csvi.search.embedder import Embedder
from csvi.search.features import read_features


class Colours(Embedder):
    """Embeds an image as its mean colour and its modality."""

    def __init__(self, fingerprint="0123456789abcdef", pause=0.0, **ranges):
        super().__init__("colours", fingerprint, fingerprint, 4, DataConfig(height=32, width=16, **ranges))
        self.seen, self.pause = [], pause

    def embed_pixels(self, images, modality):
        assert images.shape[1:] == (32, 16, 3)
        time.sleep(self.pause)
        self.seen.append((modality, len(images)))
        colours = images.mean((1, 2), dtype=np.float32)
        return np.concatenate([colours, np.full((len(images), 1), modality, np.float32)], 1)


@pytest.fixture
def table(tmp_path):
    """Ten crops of two cameras and their table: colours 0, 20, 40 … of which the odd ones are infrared."""
    folder = tmp_path / "crops"
    folder.mkdir()
    lines = ["path,camera,time,modality,track"]
    for n in range(10):
        Image.new("RGB", (24, 48), (20 * n, 5, 7)).save(folder / f"{n}.png")
        lines.append(f"{n}.png,{n % 2},2024-05-01T12:00:0{n},{('visible', 'infrared')[n % 2]},t{n // 5}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def crops_of(source, **ranges):
    return read_crops(DataConfig(root=str(source), **ranges))


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr("csvi.search.embed.PIECE", 3)
    monkeypatch.setattr("csvi.search.embed.BATCH", 2)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_rows_have_the_order_of_the_images_whatever_the_batches(table, tmp_path, suffix):
    embedder = Colours()
    made = embed_to_file(embedder, crops_of(table), tmp_path / f"f{suffix}")
    read = read_features(tmp_path / f"f{suffix}")
    assert read.embedding.tolist() == [[20 * n, 5, 7, n % 2] for n in range(10)]
    assert read.path.tolist() == [f"{n}.png" for n in range(10)]
    assert read.modality.tolist() == ["visible", "infrared"] * 5
    assert read.camera.tolist() == ["0", "1"] * 5
    assert read.time[3] == "2024-05-01T12:00:03"
    assert read.track.tolist() == ["t0"] * 5 + ["t1"] * 5
    assert (read.facts["fingerprint"], read.facts["root"]) == (embedder.fingerprint, str(table.parent))
    assert made.new == 10
    assert max(images for _, images in embedder.seen) == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["crops", f"f{suffix}"]


def test_half_takes_half_the_bytes(table, tmp_path):
    for half in (False, True):
        embed_to_file(Colours(), crops_of(table), tmp_path / f"{half}.npz", half)
    short, full = (read_features(tmp_path / f"{half}.npz").embedding for half in (True, False))
    assert short.nbytes * 2 == full.nbytes
    assert (short == full).all()


@pytest.mark.usefixtures("small_pieces")
def test_a_job_that_was_stopped_resumes(table, tmp_path):
    class Dies(Colours):
        def embed_pixels(self, images, modality):
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().embed_pixels(images, modality)

    with pytest.raises(KeyboardInterrupt):
        embed_to_file(Dies(), crops_of(table), tmp_path / "f.npz")
    assert not (tmp_path / "f.npz").exists()
    embedder = Colours()
    assert embed_to_file(embedder, crops_of(table), tmp_path / "f.npz").new == 7
    assert sum(images for _, images in embedder.seen) == 7
    assert read_features(tmp_path / "f.npz").embedding[:, 0].tolist() == [20 * n for n in range(10)]
    assert not (tmp_path / ".f.npz.pieces").exists()


@pytest.mark.usefixtures("small_pieces")
def test_a_kill_at_any_moment_loses_a_piece_at_most(table, tmp_path):
    crops, out, rng = crops_of(table), tmp_path / "f.npz", random.Random(0)
    for _ in range(8):
        process = multiprocessing.get_context("fork").Process(
            target=embed_to_file, args=(Colours(pause=0.02), crops, out)
        )
        before = len(list(tmp_path.glob(".f.npz.pieces/*.npz")))
        process.start()
        time.sleep(rng.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert out.exists() or len(list(tmp_path.glob(".f.npz.pieces/*.npz"))) >= before
    embed_to_file(Colours(), crops, out)
    read = read_features(out)
    assert read.embedding.tolist() == [[20 * n, 5, 7, n % 2] for n in range(10)]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["crops", "f.npz"]


def test_what_is_there_is_found_done(table, tmp_path):
    embed_to_file(Colours(), crops_of(table), tmp_path / "f.npz")
    inode = (tmp_path / "f.npz").stat().st_ino
    again = Colours()
    made = embed_to_file(again, crops_of(table), tmp_path / "f.npz")
    assert (made.new, again.seen, len(made.features)) == (0, [], 10)
    assert (tmp_path / "f.npz").stat().st_ino == inode  # not written anew


def test_a_table_that_was_corrected_embeds_nothing_again(table, tmp_path):
    embed_to_file(Colours(), crops_of(table), tmp_path / "f.npz")
    table.write_text(table.read_text().replace("t1", "person 1").replace("3.png,1,", "3.png,9,"))
    again = Colours()
    embed_to_file(again, crops_of(table), tmp_path / "f.npz")
    read = read_features(tmp_path / "f.npz")
    assert again.seen == []
    assert (read.camera[3], read.track[9]) == ("9", "person 1")
    assert read.embedding[:, 0].tolist() == [20 * n for n in range(10)]


def test_embeddings_of_something_else_are_never_written_over(table, tmp_path):
    out = tmp_path / "f.npz"
    embed_to_file(Colours(), crops_of(table), out)
    before = out.read_bytes()
    with pytest.raises(CsviError, match=r"by colours \(0123456789abcdef\), not by colours \(ffff\): name another file"):
        embed_to_file(Colours("ffff"), crops_of(table), out)
    with pytest.raises(CsviError, match=r"of other images than .* has now, or in other settings: name another"):
        embed_to_file(Colours(), crops_of(table), out, half=True)
    Image.new("RGB", (24, 48)).save(table.parent / "3.png")
    with pytest.raises(CsviError, match="of other images than"):
        embed_to_file(Colours(), crops_of(table), out)
    assert out.read_bytes() == before
    np.savez(out, embedding=np.zeros((3, 2)), path=np.array(["a", "b", "c"]))
    with pytest.raises(CsviError, match="is there already, and no file of csvi embed: name another file"):
        embed_to_file(Colours(), crops_of(table), out)
    with pytest.raises(CsviError, match=r"must end in \.npz or \.parquet"):
        embed_to_file(Colours(), crops_of(table), tmp_path / "f.txt")


@pytest.mark.usefixtures("small_pieces")
def test_images_that_cannot_be_read_are_listed_and_the_others_embedded(table, tmp_path, capsys):
    for n in (2, 6, 7, 8):  # 6, 7 and 8 are a whole piece
        (table.parent / f"{n}.png").write_bytes(b"nothing")
    out = tmp_path / "f.npz"
    for new in (6, 0):  # the second time it is found done
        made = embed_to_file(Colours(), crops_of(table), out)
        assert made.new == new
        assert list(made.left_out) == ["2.png", "6.png", "7.png", "8.png"]
        assert read_features(out).embedding[:, 0].tolist() == [20 * n for n in (0, 1, 3, 4, 5, 9)]
        with (tmp_path / "f.npz.left-out.csv").open(newline="") as file:
            assert list(csv.reader(file))[:2] == [["path", "reason"], ["2.png", "is not an image"]]
    for n in (0, 1, 3, 4, 5, 9):
        (table.parent / f"{n}.png").write_bytes(b"nothing")
    with pytest.raises(CsviError, match=r"none of the 10 images of .* can be read: 0.png is not an image"):
        embed_to_file(Colours(), crops_of(table), tmp_path / "g.npz")


def test_a_table_whose_infrared_images_are_not_there_is_refused(table):
    for n in (1, 3, 5, 7):
        (table.parent / f"{n}.png").unlink()
    assert len(crops_of(table).records) == 10  # 9.png is infrared
    (table.parent / "9.png").unlink()
    with pytest.raises(CsviError, match=r"none of the 5 infrared images is there, such as .*crops/1\.png$"):
        crops_of(table)
    lines = [",".join(line.split(",")[:3]) for line in table.read_text().splitlines()]
    table.write_text("\n".join(lines))  # which is silent about modalities
    assert len(crops_of(table).records) == 10


@pytest.mark.usefixtures("small_pieces")
def test_an_image_that_could_not_be_read_this_time_is_not_left_out(table, tmp_path, monkeypatch):
    crops, load = crops_of(table), type(crops_of(table)).load

    def fails(self, record):
        if record.path == "9.png":
            raise TroubleReading(self.root / record.path, "could not be read this time: Input/output error")
        return load(self, record)

    monkeypatch.setattr("csvi.data.crops.Crops.load", fails)
    with pytest.raises(CsviError, match=r"9.png: it could not be read this time"):
        embed_to_file(Colours(), crops, tmp_path / "f.npz")
    monkeypatch.undo()
    assert embed_to_file(Colours(), crops, tmp_path / "f.npz").left_out == {}


@pytest.mark.usefixtures("small_pieces")
def test_one_process_at_a_time_writes_a_file(table, tmp_path):
    crops, out = crops_of(table), tmp_path / "f.npz"
    process = multiprocessing.get_context("fork").Process(target=embed_to_file, args=(Colours(pause=30), crops, out))
    process.start()
    while not (tmp_path / ".f.npz.pieces" / ".lock").exists() or not embed_is_refused(crops, out, process.pid):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert embed_to_file(Colours(), crops, out).new == 10
    assert sorted(each.name for each in tmp_path.iterdir()) == ["crops", "f.npz"]


def embed_is_refused(crops, out, other):
    """Whether another process writes the file; stops before anything is embedded."""

    class Stops(Colours):
        def embed_pixels(self, images, modality):
            raise KeyboardInterrupt

    try:
        embed_to_file(Stops(), crops, out)
    except CsviError as error:
        return f"f.npz is being written by process {other} on " in str(error) and "name another file" in str(error)
    except KeyboardInterrupt:  # the other one has not begun
        return False


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("factor", "half", "message"),
    [(np.nan, False, "colours made embeddings that hold NaN or infinity: the model"), (1e4, True, "leave --half out")],
)
def test_what_is_no_number_is_told_at_once_and_not_kept(table, tmp_path, factor, half, message):
    class Wrong(Colours):
        def embed_pixels(self, images, modality):
            return super().embed_pixels(images, modality) * np.float32(factor)

    embedder = Wrong()
    with pytest.raises(CsviError, match=message):
        embed_to_file(embedder, crops_of(table), tmp_path / "f.npz", half)
    assert sum(images for _, images in embedder.seen) <= 5
    assert [each.name for each in tmp_path.iterdir()] == ["crops"]


def test_what_embeds_nothing_leaves_nothing(tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    Image.fromarray(np.full((48, 24), 9000, np.uint16) + np.arange(24, dtype=np.uint16)).save(folder / "a.png")
    with pytest.raises(CsviError, match="lie outside"):
        embed_to_file(Colours(), crops_of(folder, infrared_range="1,2"), tmp_path / "f.npz")
    assert [each.name for each in tmp_path.iterdir()] == ["crops"]


def test_files_of_two_kinds_have_a_list_each_of_what_is_left_out(table, tmp_path):
    (table.parent / "2.png").write_bytes(b"nothing")
    for suffix in ("npz", "parquet"):
        embed_to_file(Colours(), crops_of(table), tmp_path / f"f.{suffix}")
    assert len(list(tmp_path.glob("f.*.left-out.csv"))) == 2


def test_deep_images_are_read_in_the_range_of_the_model(tmp_path, capsys):
    folder = tmp_path / "infrared"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        pixels = rng.integers(1000, 2000, (48, 24)).astype(np.uint16)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    embedder = Colours(infrared_range="0,4000")
    made = embed_to_file(embedder, crops_of(folder, infrared_range="0,4000"), tmp_path / "f.npz")
    assert (abs(made.features.embedding[:, 0] - 1500 / 4000 * 255) < 2).all()
    facts = read_features(tmp_path / "f.npz").facts
    assert (facts["visible_range"], facts["infrared_range"]) == ("auto", "0,4000")
    with pytest.raises(CsviError, match=r"of the pixels of the infrared images of .* lie outside"):
        embed_to_file(embedder, crops_of(folder, infrared_range="7500,8400"), tmp_path / "g.npz")


def test_the_network_is_given_the_pixels_of_an_evaluation(coseg_run, sysu_root, tmp_path):
    run, seen = Run.open(coseg_run), {}

    class Keeps(Colours):
        def embed_pixels(self, images, modality):
            seen.setdefault(modality, []).extend(images)
            return super().embed_pixels(images, modality)

    embedder = Keeps()
    embedder.height, embedder.width = 32, 16
    run.data.height, run.data.width = 32, 16
    crops = crops_of(sysu_root)
    embed_to_file(embedder, crops, tmp_path / "f.npz")
    for modality in Modality:
        records = [record for record in crops.records if record.modality == modality]
        assert len(seen[modality]) == len(records)
        for record, pixels in list(zip(records, seen[modality], strict=True))[::10]:
            assert (pixels == run.image(record)).all()


def test_its_features_have_the_metrics_of_the_run(coseg_run, sysu_root, tmp_path, capsys):
    out = tmp_path / "f.npz"
    assert main(["embed", str(sysu_root), "--run", str(coseg_run), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "modality: by the dataset (240)" in printed
    assert "embedded: 240 images, 48 numbers of 32 bits each; 240 now" in printed
    assert main(["evaluate", "--features", str(out), "--data.root", str(sysu_root), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["evaluations"]
    expected = Evaluation.load(coseg_run)
    assert [p["metrics"]["R1"]["mean"] for p in found["protocols"]] == [
        p.metrics["R1"].mean for p in expected.protocols
    ]
    with np.load(coseg_run / "embeddings.npz") as kept:
        read = read_features(out)
        assert read.facts["model"] == str(coseg_run)
        row = {path: row for row, path in enumerate(read.path.tolist())}
        ours = read.embedding[[row[path] for path in kept["path"].tolist()]]
        exact = Run.open(coseg_run).embed().numpy()
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours, kept["embedding"], rtol=0, atol=5e-4)  # kept in 16 bits


def test_the_command_names_ten_images_that_cannot_be_read(coseg_run, tmp_path, capsys):
    folder = tmp_path / "crops"
    folder.mkdir()
    for n in range(13):
        (folder / f"{n:02}.png").write_bytes(b"nothing")
    Image.new("RGB", (24, 48), "red").save(folder / "red.png")
    assert main(["embed", str(folder), "--run", str(coseg_run), "--out", str(tmp_path / "f.npz")]) == 0
    printed = capsys.readouterr().out
    assert "13 images cannot be read and are left out:\n  00.png: it is not an image\n" in printed
    assert "  09.png: it is not an image\n  and 3 more\n" in printed
    assert f"left out: {tmp_path / 'f.npz.left-out.csv'}" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give the model that embeds: --run RUN"),
        (["--run", "o.onnx", "--out", "f.txt"], "f.txt must end in .npz or .parquet"),
    ],
)
def test_wrong_options_are_one_sentence(sysu_root, tmp_path, capsys, options, message):
    assert main(["embed", str(sysu_root), "--out", str(tmp_path / "f.npz"), *options]) == 1
    assert message in capsys.readouterr().err
