"""`csvi index`: images and embeddings go in, are counted, listed and removed; the same image twice is once."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from csvi.cli import main
from csvi.config import DataConfig
from csvi.data.crops import read_crops
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.search.embedder import Embedder
from csvi.search.features import write_features
from csvi.search.fill import Choices, add_crops, gallery_for_crops
from csvi.search.gallery import facts_of, open_gallery
from csvi.search.query import search


class Colours(Embedder):
    """Embeds an image as its mean colour and its modality."""

    def __init__(self):
        super().__init__("colours", "0123456789abcdef", "0123456789abcdef", 4, DataConfig(height=32, width=16))
        self.images = 0

    def embed_pixels(self, images, modality):
        self.images += len(images)
        colours = images.mean((1, 2), dtype=np.float32)
        return np.concatenate([colours, np.full((len(images), 1), modality, np.float32)], 1)


@pytest.fixture
def crops(tmp_path):
    """Ten crops of two cameras, and their table; the odd ones are infrared."""
    folder = tmp_path / "crops"
    folder.mkdir()
    lines = ["path,camera,time,modality,track"]
    for n in range(10):
        Image.new("RGB", (24, 48), (25 * n, 60, 7)).save(folder / f"{n}.png")
        lines.append(f"{n}.png,{n % 2},2024-05-01T12:00:0{n},{('visible', 'infrared')[n % 2]},t{n // 5}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder


def add(uri, source, **options):
    """Add crops as the command does; returns how many were embedded, and what it says of them."""
    facts = facts_of(uri)
    data = facts.read_as(DataConfig(root=str(source))) if facts else DataConfig(root=str(source))
    data.infrared_range = options.pop("infrared_range", data.infrared_range)
    embedder, found = Colours(), read_crops(data, modality=options.pop("modality", None))
    again = options.pop("again", False)
    with gallery_for_crops(uri, found, embedder, Choices(**options)) as gallery:
        before = embedder.images  # to choose the metric
        return add_crops(gallery, found, embedder, again), embedder.images - before


def test_images_that_are_there_are_not_embedded_again(uri, crops):
    added, embedded = add(uri, crops / "table.csv")
    assert (added.new, added.there, embedded) == (10, 0, 10)
    Image.new("RGB", (24, 48)).save(crops / "10.png")
    with (crops / "table.csv").open("a") as table:
        table.write("\n10.png,7,,visible,")
    added, embedded = add(uri, crops / "table.csv")
    assert (added.new, added.there, embedded) == (1, 10, 1)
    added, embedded = add(uri, crops / "table.csv", again=True)
    assert (added.new, added.replaced, added.there, embedded) == (0, 11, 0, 11)
    with open_gallery(uri) as gallery:
        assert len(gallery) == 11
        assert gallery.facts.metric == "l2"  # colours are of any length
        assert gallery.there(["3.png"])["3.png"].time == "2024-05-01T12:00:03"
        vector = np.array([[75, 60, 7, 1]], np.float32)
        assert search(gallery, vector, 1)[0].path == "3.png"
        assert search(gallery, vector, 1)[0].distance == pytest.approx(0, abs=1e-4)


class Alike(Embedder):
    """Embeds an image as what is left of it if its columns are averaged, for which all noise is alike."""

    def __init__(self, normalised):
        super().__init__("alike", "0123456789abcdef", "0123456789abcdef", 432, DataConfig(height=144, width=72))
        self.normalised = normalised

    def embed_pixels(self, images, modality):
        embeddings = images.mean(2, dtype=np.float32).reshape(len(images), -1) + 1
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) if self.normalised else embeddings


@pytest.mark.parametrize(("normalised", "metric"), [(False, "l2"), (True, "cosine")])
def test_the_metric_is_not_told_by_images_that_a_network_takes_for_alike(uri, crops, normalised, metric):
    found, embedder = read_crops(DataConfig(root=str(crops))), Alike(normalised)
    noise = np.random.default_rng(0).integers(256, size=(4, 144, 72, 3), dtype=np.uint8)
    lengths = np.linalg.norm(embedder.embed_pixels(noise, Modality.VISIBLE), axis=1)
    assert np.ptp(lengths) < 0.01 * lengths.max()  # though crops are from dark to bright
    with gallery_for_crops(uri, found, embedder, Choices()) as gallery:
        assert gallery.facts.metric == metric
    embedder.embed_pixels = None  # the metric is chosen once
    with gallery_for_crops(uri, found, embedder, Choices()) as gallery:
        assert gallery.facts.metric == metric


def test_a_single_crop_does_not_decide_the_metric(uri, crops, tmp_path):
    (tmp_path / "one").mkdir()
    shutil.copy(crops / "3.png", tmp_path / "one")
    add(uri, tmp_path / "one")
    assert facts_of(uri).metric == "l2"


def test_what_a_table_says_anew_of_an_image_is_taken_over(uri, crops):
    add(uri, crops / "table.csv")
    table = crops / "table.csv"
    table.write_text(table.read_text().replace("3.png,1,", "3.png,1b,"))
    added, embedded = add(uri, table)
    assert (added.new, added.replaced, added.there, embedded) == (0, 1, 9, 1)
    with open_gallery(uri) as gallery:
        assert gallery.there(["3.png"])["3.png"].camera == "1b"
        assert len(gallery) == 10


def test_what_is_known_of_an_image_stays_where_its_folder_says_nothing_or_guesses(uri, crops):
    (crops / "visible" / "cam8").mkdir(parents=True)
    (crops / "3.png").rename(crops / "visible" / "cam8" / "3.png")
    table = crops / "table.csv"
    table.write_text(table.read_text().replace("3.png", "visible/cam8/3.png"))
    add(uri, table)
    with open_gallery(uri) as gallery:
        before = list(gallery.entries())
    added, embedded = add(uri, crops)  # cameras by folders, or not at all; no times; modalities by folders or colours
    assert (added.new, added.replaced, added.there, embedded) == (0, 0, 10, 0)
    assert add(uri, crops, again=True)[0].replaced == 10
    with open_gallery(uri) as gallery:
        assert list(gallery.entries()) == before
        embeddings = gallery.embeddings([entry.path for entry in before])
        assert embeddings[:, 3].tolist() == [entry.modality == "infrared" for entry in before]
    added, _ = add(uri, crops, modality=Modality.INFRARED)  # somebody says so
    assert (added.new, added.replaced, added.there) == (0, 5, 5)
    with open_gallery(uri) as gallery:
        expected = [dataclasses.replace(entry, modality="infrared") for entry in before]
        assert list(gallery.entries()) == expected


def test_a_gallery_is_not_made_with_a_root_that_is_not_above_the_images(uri, crops, tmp_path):
    with pytest.raises(CsviError, match=r"the images are in .*crops, outside of --root .*nope: name a folder above"):
        add(uri, crops / "table.csv", root=tmp_path / "nope")
    assert add(uri, crops / "table.csv")[0].new == 10


def test_images_that_cannot_be_read_are_named_and_the_others_added(uri, crops):
    (crops / "4.png").write_bytes(b"nothing")
    added, _ = add(uri, crops / "table.csv")
    assert (added.new, added.left_out) == (9, {"4.png": "is not an image"})
    assert add(uri, crops / "table.csv")[1] == 0


def test_a_job_that_was_interrupted_resumes(uri, crops, monkeypatch):
    monkeypatch.setattr("csvi.search.embed.BATCH", 2)

    class Stops(Colours):
        def embed_pixels(self, images, modality):
            if self.images == 16 + 5:  # to choose the metric, and the visible ones
                raise KeyboardInterrupt
            return super().embed_pixels(images, modality)

    found = read_crops(DataConfig(root=str(crops / "table.csv")))
    stops = Stops()
    with gallery_for_crops(uri, found, stops, Choices()) as gallery, pytest.raises(KeyboardInterrupt):
        add_crops(gallery, found, stops)
    added, embedded = add(uri, crops / "table.csv")
    assert (added.there, embedded) == (5, 5)
    with open_gallery(uri) as gallery:
        assert len(gallery) == 10


def test_images_outside_of_the_root_are_refused_unless_the_root_is_above_them(uri, crops, tmp_path):
    other = shutil.copytree(crops, tmp_path / "other")
    add(uri, crops / "table.csv")
    with pytest.raises(CsviError, match=r"other/0.png lies outside of .*crops, the root of the gallery"):
        add(uri, other / "table.csv")
    above = str(tmp_path / "above.db")
    add(above, crops / "table.csv", root=tmp_path)
    add(above, other / "table.csv")
    with open_gallery(above) as gallery:
        assert len(gallery) == 20
        assert gallery.there(["crops/0.png", "other/9.png"]).keys() == {"crops/0.png", "other/9.png"}


def write_deep(folder, lowest):
    """Three infrared images of 16 bits, of values from `lowest` to 1,000 above."""
    folder.mkdir()
    for n in range(3):
        pixels = np.random.default_rng(n).integers(lowest, lowest + 1000, (48, 24)).astype(np.uint16)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return folder


@pytest.mark.slow
def test_images_of_more_than_8_bits_are_all_read_in_one_range(uri, crops, tmp_path):
    add(uri, crops / "table.csv", root=tmp_path)
    with open_gallery(uri) as gallery:
        assert (gallery.facts.visible_range, gallery.facts.infrared_range) == ("auto", "auto")
    with pytest.raises(CsviError, match=r"lie outside --data\.infrared_range 1,2"):
        add(uri, write_deep(tmp_path / "night", 7000), infrared_range="1,2")
    add(uri, tmp_path / "night")  # the first of them are measured
    kept = facts_of(uri).infrared_range
    black, white = map(float, kept.split(","))
    assert 7000 <= black < white < 8000
    add(uri, write_deep(tmp_path / "warmer", 7300))
    assert facts_of(uri).infrared_range == kept
    with open_gallery(uri) as gallery:
        first, warmer = (gallery.embeddings([f"{folder}/0.png"])[0, 0] for folder in ("night", "warmer"))
    assert warmer - first > 40  # of 255: the same temperature is the same grey
    with pytest.raises(CsviError, match=f"were read in --data.infrared_range {kept}, not in 1,9000: read these in it"):
        add(uri, tmp_path / "warmer", infrared_range="1,9000")


def test_a_gallery_whose_images_were_moved(uri, crops, tmp_path, capsys):
    add(uri, crops / "table.csv")
    moved = shutil.move(crops, tmp_path / "moved")
    with pytest.raises(CsviError, match="say with csvi index move where its images have been moved to"):
        add(uri, moved / "table.csv")
    words = ["index", "move", "--gallery", uri, "--root"]
    assert main([*words, str(tmp_path / "nowhere")]) == 1
    assert f"no folder {tmp_path / 'nowhere'}: --root is where the images" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "x" / ".." / "moved")]) == 1  # as x is none
    (tmp_path / "x").mkdir()
    assert main([*words, str(tmp_path / "x" / ".." / "moved")]) == 0
    assert capsys.readouterr().out == f"root: {moved}\n"
    assert add(uri, moved / "table.csv")[0].there == 10


def test_a_gallery_remembers_the_model_of_a_file_of_embeddings(uri, make_features, tmp_path, capsys):
    features = make_features()
    write_features(tmp_path / "f.npz", features)
    features.facts.update(model="/runs/north", infrared_range="7500,8400")
    write_features(tmp_path / "g.npz", features)
    for name, model in (("f", ""), ("g", "/runs/north"), ("f", "/runs/north")):
        assert main(["index", "add", str(tmp_path / f"{name}.npz"), "--gallery", uri]) == 0
        assert facts_of(uri).model == model
    assert capsys.readouterr().out.endswith(f"next: csvi search PROBE --gallery {uri}\n")
    assert main(["index", "info", "--gallery", uri]) == 0
    assert capsys.readouterr().out.endswith("\ninfrared_range: 7500,8400\n")


@pytest.fixture
def filled(uri, make_features, tmp_path, capsys):
    """Name of a gallery of 60 images."""
    write_features(tmp_path / "f.parquet", make_features())
    assert main(["index", "add", str(tmp_path / "f.parquet"), "--gallery", uri]) == 0
    out = capsys.readouterr().out
    assert "added: 60 images" in out
    assert f"next: csvi search PROBE --gallery {uri} --run RUN\n" in out  # whose folder the embeddings do not say
    return uri


def test_embeddings_of_a_file_are_added_once(filled, tmp_path, capsys):
    assert main(["index", "add", str(tmp_path / "f.parquet"), "--gallery", filled]) == 0
    out = capsys.readouterr().out
    assert "added: 0 images; 60 were there already" in out
    assert f"gallery: {filled}, 60 images, cosine\n" in out


def test_an_index_is_proposed_for_many_images(filled, tmp_path, capsys, monkeypatch):
    words = ["index", "add", str(tmp_path / "f.parquet"), "--gallery", filled]
    monkeypatch.setattr("csvi.search.gallery.MANY", 59)
    assert main(words) == 0
    assert "hint: it is searched exactly, image by image; --index_type HNSW" in capsys.readouterr().out
    assert main([*words, "--index_type", "HNSW"]) == 0
    assert "hint" not in capsys.readouterr().out
    assert main(words) == 0  # it stays
    assert "hint" not in capsys.readouterr().out


def test_info(filled, capsys):
    assert main(["index", "info", "--gallery", filled]) == 0
    out = capsys.readouterr().out
    for line in ("60 images", "a run (0123456789abcdef), 8 numbers", "metric: cosine; index: FLAT", "root: /crops"):
        assert line in out
    assert "visible, 1" in out
    assert "infrared, not known" in out
    assert main(["index", "--gallery", filled, "info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == sum(camera["images"] for camera in found["cameras"]) == 60
    assert {"modality": "infrared", "camera": "3", "images": 4} in found["cameras"]
    assert (found["facts"]["fingerprint"], found["facts"]["metric"]) == ("0123456789abcdef", "cosine")


def listed(uri, capsys, *conditions):
    assert main(["index", "list", "--gallery", uri, "--json", *conditions]) == 0
    return [int(entry["path"][2:7]) for entry in json.loads(capsys.readouterr().out)]


def test_list(filled, capsys, monkeypatch):
    assert listed(filled, capsys) == list(range(60))
    assert listed(filled, capsys, "--path", "c/0000*") == list(range(10))
    assert listed(filled, capsys, "--camera", "1,2", "--modality", "infrared") == [6, 12, 21, 27, 36, 42, 51, 57]
    assert listed(filled, capsys, "--until", "2024-05-01T12:00:08") == [1, 2, 3, 4, 5, 6, 8]
    assert listed(filled, capsys, "--until", "2024-05-01", "--since", "2024-05-01T12:00:57") == [57, 58, 59]
    assert listed(filled, capsys, "--track", "t2,t14") == [8, 9, 10, 56, 57, 58, 59]
    assert main(["index", "list", "--gallery", filled, "--camera", "3"]) == 0
    out = capsys.readouterr().out
    assert "c/00008.jpg" in out
    assert out.endswith("12 images\n")
    monkeypatch.setenv("COLUMNS", "52")
    assert main(["index", "list", "--gallery", filled, "--camera", "3"]) == 0
    assert "…" not in capsys.readouterr().out  # long paths are folded, not cut


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        (["--path", "*/0000[0-4].jpg"], 55),
        (["--camera", "3"], 48),
        (["--until", "2024-05-01T12:00:08"], 53),
        (["--track", "t2", "--modality", "visible"], 58),
        (["--path", "nothing"], 60),
    ],
)
def test_remove(filled, capsys, conditions, left):
    assert main(["index", "remove", "--gallery", filled, *conditions]) == 0
    assert f"removed: {60 - left} images" in capsys.readouterr().out
    assert len(listed(filled, capsys)) == left


def test_a_gallery_is_removed_and_made_anew_for_another_model(filled, make_features, tmp_path, capsys):
    write_features(tmp_path / "g.npz", make_features(7, dim=5, fingerprint="f" * 16))
    assert main(["index", "add", str(tmp_path / "g.npz"), "--gallery", filled]) == 1
    assert "cannot be compared" in capsys.readouterr().err
    assert main(["index", "remove", "--all", "--gallery", filled]) == 0
    assert "removed: 60 images" in capsys.readouterr().out
    assert main(["index", "info", "--gallery", filled]) == 1
    assert main(["index", "add", str(tmp_path / "g.npz"), "--gallery", filled]) == 0
    capsys.readouterr()
    assert len(listed(filled, capsys)) == 7


def test_two_galleries_lie_in_one_file(filled, make_features, tmp_path, capsys):
    write_features(tmp_path / "g.npz", make_features(7, dim=5, fingerprint="f" * 16))
    assert main(["index", "add", str(tmp_path / "g.npz"), "--gallery", filled, "--collection", "other"]) == 0
    capsys.readouterr()
    assert len(listed(filled, capsys)) == 60
    assert len(listed(filled, capsys, "--collection", "other")) == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["remove"], "say which images to remove: --path"),
        (["remove", "--all", "--camera", "1"], "say which images to remove: --path"),
        (["remove", "--camera", ","], "--camera ',' names nothing: write it as 1,2, or leave it out"),
        (["remove", "--path="], "--path is empty: give it a value, or leave it out"),
        (["remove", "--camera", "1", "--until="], "--until is empty: give it a value, or leave it out"),
        (["list", "--since", "2024-05-02", "--until", "2024-05-01"], "--since 2024-05-02 is later than --until"),
        (["add", "f.npz", "--modality", "visible"], "--modality is for images, and f.npz holds embeddings"),
        (["add", "f.npz", "--data.infrared_range", "1,2"], "--data.infrared_range is for images"),
        (["list", "--since", "now"], "'now' is no time"),
        (["add", "f.npz"], "no such file: f.npz"),
        (["add", "crops"], "lies is not known (it was filled with embeddings): give --run RUN"),
        (["add", "crops", "--collection", "new"], "give the model that embeds: --run RUN"),
    ],
)
def test_what_is_wrong_is_one_sentence(filled, capsys, tmp_path, monkeypatch, words, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["index", *words, "--gallery", filled]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_help_and_wrong_words(capsys):
    for words in ([], ["--help"], ["add", "--help"], ["nothing"]):
        with pytest.raises(SystemExit) as ended:
            main(["index", *words])
        assert ended.value.code == (0 if "--help" in words else 2)
    assert "'nothing'" in capsys.readouterr().err.splitlines()[-1]
