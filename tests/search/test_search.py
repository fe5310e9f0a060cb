"""Searching: the ranking is the exact one, conditions hold, and persons are found as often as `csvi evaluate` says."""

import csv
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
from csvi.methods.baseline import Baseline
from csvi.runs import Run
from csvi.runs.evaluation import evaluate_run
from csvi.runs.run import Options
from csvi.search.embedder import open_embedder
from csvi.search.features import write_features
from csvi.search.fill import Choices, add_crops, add_features, gallery_for_crops, gallery_for_features
from csvi.search.gallery import Hit, open_gallery
from csvi.search.query import Where, average, moment, search
from csvi.search.strip import HEIGHT, write_strip
from csvi.train.loop import train


@pytest.fixture(scope="module")
def features(make_features):
    """300 embeddings of several lengths; every third one is also that of another image."""
    features = make_features(300, lengths=np.linspace(1, 3, 300)[:, None])
    features.embedding[1::3] = features.embedding[::3][::-1]
    return features


@pytest.fixture(scope="module", params=["cosine", "l2"])
def gallery(features, request, tmp_path_factory):
    with gallery_for_features(
        str(tmp_path_factory.mktemp("gallery") / "g.db"), features, Choices(metric=request.param)
    ) as gallery:
        add_features(gallery, features)
        yield gallery


def exact(features, metric, vector, among):
    """Rows from best to worst, equally good ones by path, and how far they are."""
    vectors = features.embedding.astype(np.float64)
    if metric == "l2":
        distance = np.linalg.norm(vectors - vector, axis=1)
    else:
        distance = 1 - vectors @ vector / np.linalg.norm(vector) / np.linalg.norm(vectors, axis=1)
    order = np.lexsort([features.path, distance.round(6)])
    return order[among[order]], distance


TRACKS = ["t1", "t20", "t50"]
WHERES = [
    (Where(), lambda f: np.ones(len(f), bool)),
    (Where(cameras=["1", "3"]), lambda f: np.isin(f.camera, ["1", "3"])),
    (Where(modality="infrared", tracks=TRACKS), lambda f: (f.modality == "infrared") & np.isin(f.track, TRACKS)),
    (Where(since=moment("2024-05-01T12:01:00")), lambda f: f.time >= "2024-05-01T12:01:00"),
    (Where(until=moment("2024-05-01T14:01:00+02:00")), lambda f: (f.time != "") & (f.time <= "2024-05-01T12:01:00")),
    (Where(cameras=["99"]), lambda f: np.zeros(len(f), bool)),
]


@pytest.mark.parametrize(("where", "truth"), WHERES)
@pytest.mark.parametrize("top", [1, 20, 299, 400])
def test_the_ranking_is_the_exact_one(gallery, features, where, truth, top):
    probe = np.random.default_rng(top).standard_normal((1, 8)).astype(np.float32)
    hits = search(gallery, probe, top, where)
    rows, distance = exact(features, gallery.facts.metric, probe[0], truth(features))
    assert [hit.path for hit in hits] == features.path[rows[:top]].tolist()
    assert np.allclose([hit.distance for hit in hits], distance[rows[:top]], atol=1e-5)
    similarity = [hit.similarity for hit in hits]
    assert similarity == sorted(similarity, reverse=True)


@pytest.mark.parametrize(("where", "truth"), WHERES)
def test_of_each_track_the_best_image_is_found(gallery, features, where, truth):
    probe = np.random.default_rng(5).standard_normal((1, 8)).astype(np.float32)
    rows, _ = exact(features, gallery.facts.metric, probe[0], truth(features))
    best, seen = [], set()
    for row in rows:
        track = str(features.track[row])
        if track not in seen:
            best.append(str(features.path[row]))
            seen |= {track} - {""}
    hits = search(gallery, probe, 60, where, by_track=True)
    assert [hit.path for hit in hits] == best[:60]


def test_more_images_are_asked_for_until_there_are_tracks_enough(features, uri):
    """One track has the 200 nearest images."""
    order = np.argsort(-features.embedding @ features.embedding[0])
    track = np.array(["long"] * 300, dtype="<U5")
    track[order[200:]] = [f"t{n}" for n in range(100)]
    features = dataclasses.replace(features, track=track)
    with gallery_for_features(uri, features, Choices()) as gallery:
        add_features(gallery, features)
        hits = search(gallery, features.embedding[:1], 3, by_track=True)
        assert hits[0].track == "long"
        assert len({hit.track for hit in hits}) == 3


@pytest.mark.parametrize(
    "name", ['1"] or path != "', "1' or 1 == 1", "\\", '\\"', "1\n2", '"', "%", "ü", '1", "2', "1 or camera like '%'"]
)
def test_names_are_never_taken_for_conditions(gallery, features, name):
    for where in (Where(cameras=[name]), Where(tracks=[name]), Where(cameras=["1"], tracks=[name])):
        assert search(gallery, features.embedding[:1], 5, where) == []


def test_probes_are_averaged_and_keep_their_length():
    vectors = np.array([[3.0, 0, 0], [0, 3, 0]], np.float32)
    assert np.allclose(average(vectors), np.array([1, 1, 0]) * 3 / 2**0.5)
    assert np.allclose(average(vectors[:1]), vectors[0])
    assert average(np.array([[1.0, 0], [-1, 0]])).tolist() == [0, 0]


def test_dates_and_times_are_moments():
    assert moment("2024-05-01") == moment("2024-05-01T00:00:00Z") == 1714521600
    assert moment("2024-05-01", end=True) == moment("20240501", end=True) == moment("2024-05-01T23:59:59")
    assert moment("2024-05-01T12:00:00", end=True) == moment("2024-05-01T14:00:00+02:00")
    for wrong in ("yesterday", ""):
        with pytest.raises(CsviError, match=f"'{wrong}' is no time: write it as 2024-05-01"):
            moment(wrong)


@pytest.fixture(scope="module")
def people(sysu_root, tmp_path_factory):
    """Test images of the fixture as a dataset of layout `folder`, in which each camera takes both spectra."""
    root = tmp_path_factory.mktemp("people") / "root"
    same = {"cam1": 1, "cam2": 2, "cam3": 1, "cam4": 4, "cam5": 5, "cam6": 2}
    lines = []
    for file in sysu_root.glob("cam?/*/*.jpg"):
        path = file.relative_to(sysu_root)
        camera, person, _ = path.parts
        if int(person) > 12:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / path)
            modality = "infrared" if camera in ("cam3", "cam6") else "visible"
            lines.append((path, person, same[camera], modality, "test", f"2024-05-0{1 + int(person) % 7}"))
    with (root / "images.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "identity", "camera", "modality", "split", "time"), *sorted(lines)])
    return root


@pytest.fixture(scope="module")
def people_gallery(people, coseg_run, tmp_path_factory):
    """Name of a gallery of them."""
    uri = str(tmp_path_factory.mktemp("people") / "g.db")
    assert main(["index", "add", str(people), "--gallery", uri, "--run", str(coseg_run)]) == 0
    return uri


@pytest.fixture
def trained_run(config, tmp_path):
    """A run that has learnt something: embeddings of others hardly differ."""
    config.method = Baseline.Settings(backbone="mobilenet_v2", weights="none", parts=3, part_dim=8)
    config.train.epochs, config.train.lr = 6, 0.02
    train(config, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_persons_are_found_as_often_as_evaluate_says(people, trained_run, uri):
    assert main(["index", "add", str(people), "--gallery", uri, "--run", str(trained_run)]) == 0
    run = Run.open(trained_run, Options(root=str(people)))
    expected = {result.protocol: result.metrics["R1"].mean for result in evaluate_run(run).protocols}
    embedder = open_embedder(trained_run)
    records = {record.path: record for record in run.benchmark.test}
    found = {}
    with open_gallery(uri) as gallery:
        assert len(gallery) == len(records) == 96
        for modality, other in (("infrared", "visible"), ("visible", "infrared")):
            right = []
            for query in records.values():
                if query.modality.word == modality:
                    vector = embedder.embed([people / query.path], modality)
                    assert search(gallery, vector, 1)[0].path == query.path  # an image finds itself first
                    hits = [records[hit.path] for hit in search(gallery, vector, 96, Where(modality=other))]
                    others = [hit for hit in hits if (hit.identity, hit.camera) != (query.identity, query.camera)]
                    right.append(others[0].identity == query.identity)  # by the rules of the layout
            found[f"{modality} to {other}"] = np.mean(right)
    assert found == expected
    assert 0.2 < found["infrared to visible"] < 1


def probe(people, camera="cam3", n=0):
    return str(sorted((people / camera).glob("*/*.jpg"))[n])


def test_the_command_prints_a_table_and_draws_a_strip(people, people_gallery, tmp_path, capsys):
    strip = tmp_path / "strip.png"
    words = [probe(people), probe(people, n=1), "--gallery", people_gallery, "--modality", "visible"]
    assert main(["search", *words, "--top", "12", "--strip", str(strip)]) == 0  # the gallery remembers the run
    out = capsys.readouterr().out
    assert out.count("visible") == 12
    assert "infrared" not in out
    assert f"strip: {strip}" in out
    with Image.open(strip) as image:
        assert image.size[0] == 10 * (112 + 8) + 8
        first = np.asarray(image.convert("RGB"))[8, 8 + 50]
    assert first.tolist() == [0xE8, 0x59, 0x0C]  # the frame of a probe


def test_the_command_prints_json(people, people_gallery, coseg_run, capsys):
    words = [probe(people), "--gallery", people_gallery, "--run", str(coseg_run), "--top", "3", "--json"]
    conditions = ["--camera", "4,5", "--since", "2024-05-02", "--until", "2024-05-05", "--by", "track"]
    assert main(["search", *words, *conditions]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["root"] == str(people)
    assert len(found["hits"]) == 3
    for hit in found["hits"]:
        assert hit["camera"] in ("4", "5")
        assert "2024-05-02" <= hit["time"] <= "2024-05-05"
    similarity = [hit["similarity"] for hit in found["hits"]]
    assert similarity == sorted(similarity, reverse=True)


@pytest.mark.slow
def test_a_probe_of_16_bits_is_searched_in_the_range_that_is_given_or_the_gallerys(people_gallery, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(7500, 8400, (64, 32), dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    words = ["search", str(tmp_path / "deep.png"), "--gallery", people_gallery, "--top", "1"]
    assert main(words) == 1
    assert "say which values are black and white, as --data.infrared_range 7500,8400" in capsys.readouterr().err
    found = []
    for kept, given in (("auto", "7500,8400"), ("7500,8400", ""), ("1,2", "7500,8400"), ("1,2", "")):
        with open_gallery(people_gallery) as gallery:
            gallery.change(infrared_range=kept)
        capsys.readouterr()
        assert main([*words, "--json", *(["--data.infrared_range", given] if given else [])]) == 0
        found.append(json.loads(capsys.readouterr().out)["hits"])
    with open_gallery(people_gallery) as gallery:
        gallery.change(infrared_range="auto")
    assert found[0] == found[1] == found[2] != found[3]


def wrong_probe(people, other):
    return [str(people / "images.csv")], "cannot read the image"


def no_such_camera(people, other):
    return [probe(people), "--camera", "77"], "no image of .* meets the conditions: csvi index info shows its cameras"


def another_model(people, other):
    return [probe(people), "--run", str(other)], r"holds embeddings by .*, which cannot be compared with those by "


def no_time(people, other):
    return [probe(people), "--since", "noon"], "'noon' is no time"


def too_many(people, other):
    return [probe(people), "--top", "0"], "--top 0: ask for 1 to 4,096 images"


def no_png(people, other):
    return [probe(people), "--strip", "a.jpg"], "--strip a.jpg: the name must end in .png"


@pytest.mark.parametrize("make", [wrong_probe, no_such_camera, another_model, no_time, too_many, no_png])
def test_the_command_says_what_is_wrong_in_one_sentence(people, people_gallery, baseline_run, make, capfd):
    words, message = make(people, baseline_run)
    assert main(["search", *words, "--gallery", people_gallery]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(err)


def test_a_strip_replaces_no_picture_but_a_strip(people, people_gallery, tmp_path, capsys):
    picture = tmp_path / "holiday.png"
    Image.new("RGB", (8, 8)).save(picture)
    before = picture.read_bytes()
    (tmp_path / "link.png").symlink_to(picture)
    (tmp_path / "text.png").write_text("no picture")
    for name in ("holiday.png", "link.png", "text.png"):
        assert main(["search", probe(people), "--gallery", people_gallery, "--strip", str(tmp_path / name)]) == 1
        assert f"{name} is there and was not written by csvi: name another file" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_a_search_says_that_the_images_are_not_where_they_were(people, people_gallery, tmp_path, caplog):
    words = ["search", probe(people), "--gallery", people_gallery, "--top", "2", "--strip", str(tmp_path / "strip.png")]
    try:
        for root, line in (
            (
                tmp_path / "gone",
                f"gone, the folder of the images, is not there any more: csvi index move --gallery {people_gallery}",
            ),
            (tmp_path, "2 of the 2 images that were found cannot be read"),
        ):
            with open_gallery(people_gallery) as gallery:
                gallery.change(root=str(root))
            assert main(words) == 0  # which replaces the strip of before
            assert line in caplog.messages[-1]
    finally:
        with open_gallery(people_gallery) as gallery:
            gallery.change(root=str(people))


def test_an_empty_gallery_and_one_of_unknown_model_are_one_sentence(people, make_features, uri, tmp_path, capsys):
    write_features(tmp_path / "f.npz", make_features())
    assert main(["index", "add", str(tmp_path / "f.npz"), "--gallery", uri]) == 0
    assert main(["search", probe(people), "--gallery", uri]) == 1
    assert "is not known (it was filled with embeddings): give --run RUN" in capsys.readouterr().err
    assert main(["index", "remove", "--path", "*", "--gallery", uri]) == 0
    assert main(["search", probe(people), "--gallery", uri]) == 1
    assert "is empty: add images with csvi index add" in capsys.readouterr().err


@pytest.mark.slow
def test_folders_below_the_root_of_the_gallery_tell_cameras(people, baseline_run, uri, capsys):
    for camera, more in ((3, ["--root", str(people), "--run", str(baseline_run)]), (6, [])):
        assert main(["index", "add", str(people / f"cam{camera}"), "--gallery", uri, *more]) == 0
    with open_gallery(uri) as gallery:
        assert {camera for _, camera in gallery.counts()} == {"3", "6"}
    capsys.readouterr()
    assert main(["index", "add", str(people), "--gallery", uri]) == 0  # which calls them 1 and 2
    assert "added: 64 images; 32 were replaced, " in capsys.readouterr().out


def test_a_run_that_has_been_moved_is_one_sentence(people, coseg_run, uri, tmp_path, capsys):
    run = shutil.copytree(coseg_run, tmp_path / "run")
    crops = read_crops(DataConfig(root=str(people)))
    embedder = open_embedder(run)
    with gallery_for_crops(uri, crops, embedder, Choices()) as gallery:
        add_crops(gallery, crops, embedder)
    assert main(["index", "add", str(people), "--gallery", uri]) == 0  # the gallery remembers the run
    assert "96 were there already" in capsys.readouterr().out
    shutil.move(run, tmp_path / "moved")
    assert main(["search", probe(people), "--gallery", uri]) == 1
    assert f"({run} is not there any more): give --run RUN" in capsys.readouterr().err
    assert main(["search", probe(people), "--gallery", uri, "--run", str(tmp_path / "moved")]) == 0


def test_a_strip_shows_nothing_outside_of_the_root(tmp_path):
    (tmp_path / "root").mkdir()
    Image.new("RGB", (24, 48)).save(tmp_path / "secret.png")
    hit = Hit("../secret.png", "visible", "", "", "", 0.5, 0.5)
    probe = tmp_path / "secret.png", Modality.VISIBLE
    assert write_strip([probe], [hit], tmp_path / "root", DataConfig(), tmp_path / "strip.png") == 1


def test_a_strip_shows_what_the_root_has_links_to(tmp_path):
    for folder in ("root", "disk2/cam1"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (24, 48), "red").save(tmp_path / "disk2" / "cam1" / "a.png")
    (tmp_path / "root" / "cam1").symlink_to(tmp_path / "disk2" / "cam1")
    probe = tmp_path / "disk2" / "cam1" / "a.png", Modality.VISIBLE
    hits = [Hit(path, "visible", "", "", "", 0.5, 0.5) for path in ("cam1/a.png", "cam1/../../disk2/cam1/a.png")]
    assert write_strip([probe], hits, tmp_path / "root", DataConfig(), tmp_path / "strip.png") == 1
    with Image.open(tmp_path / "strip.png") as strip:
        assert [strip.getpixel((strip.width * n // 6, HEIGHT // 2)) for n in (1, 3)] == [(255, 0, 0)] * 2


def test_a_strip_has_the_probe_in_its_range_and_what_was_found_in_the_gallerys(tmp_path):
    Image.fromarray(np.full((64, 32), 8000, np.uint16)).save(tmp_path / "deep.png")
    hit = Hit("deep.png", "infrared", "", "", "", similarity=1.0, distance=0.0)
    data = DataConfig(infrared_range="0,8000")
    write_strip(
        [(tmp_path / "deep.png", Modality.INFRARED)], [hit], tmp_path, data, tmp_path / "strip.png",
        dataclasses.replace(data, infrared_range="8000,9000"),
    )  # fmt: skip
    with Image.open(tmp_path / "strip.png") as strip:
        grey = np.asarray(strip.convert("L"))
    assert [int(grey[grey.shape[0] // 3, x]) for x in (grey.shape[1] // 4, 3 * grey.shape[1] // 4)] == [0, 255]
