"""What is said of people, names and files before training begins: by `csvi check` and in the log of training."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from csvi.analysis.dataset_table import print_check
from csvi.config import DataConfig
from csvi.data.check import check_dataset
from csvi.data.findings import before_training
from csvi.data.layout import read_fold


def checked(root, layout=None, decode=False, identities=1, **data):
    """With batches of one person: the datasets here have few people, which is not what they are about."""
    return check_dataset(DataConfig(str(root), identities=identities, **data), layout, decode)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def put(root, *files):
    """Images, each of other bytes, and empty files."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        seed = [*file.encode()]
        if file.endswith((".jpg", ".png", ".pgm")):
            pixels = np.random.default_rng(seed).integers(256, size=(16, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / file)
        else:
            (root / file).touch()


def both(*names):
    return [f"{modality}/{name}/1.png" for name in names for modality in ("visible", "infrared")]


def table(root, *lines, header="path,identity,modality,split,camera"):
    """A table, and the images that it names."""
    put(root, *(line.split(",")[0] for line in lines))
    (root / "images.csv").write_text("\n".join([header, *lines]))


def notes(root, *kinds):
    """What check notes, and what training logs."""
    check = checked(root)
    assert not check.problems
    found = [f"{note.path} {note.message}" for note in check.notes if note.kind in kinds]
    assert len(found) == len(check.notes)
    return found, list(before_training(read_fold(check.layout, root)))


SPLIT = [
    "a.png,{},visible,train,1", "b.png,{},infrared,train,2", "c.png,{},visible,test,1", "d.png,{},infrared,test,2"
]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second"),
    [("anna", "Anna"), ("0007", "7"), ("a b", "A  B"), ("Zoë", unicodedata.normalize("NFD", "ZOË"))],
)
def test_people_who_look_alike_in_two_splits_are_named_by_check_and_in_training(tmp_path, first, second):
    table(tmp_path, *(line.format(name) for line, name in zip(SPLIT, (first, first, second, second), strict=True)))
    (said,), logged = notes(tmp_path, "look-alike")
    names = {unicodedata.normalize("NFC", name) for name in (first, second)}
    assert all(name in said for name in names)
    assert (
        "look alike and are in train and test: if they are one person, these share it and metrics are too good" in said
    )
    assert logged == [said]


def test_people_who_look_alike_in_one_split_are_named_by_check_alone(tmp_path):
    put(tmp_path, *both("anna", "Anna", "行人"))  # the last is in test
    assert notes(tmp_path, "look-alike") == (
        ["Anna and anna look alike and count as several people: give them one name if they are one"],
        [],
    )


def test_people_in_two_splits_come_before_those_in_one(tmp_path):
    table(tmp_path, *(line.format(n) for line, n in zip(SPLIT, ("ben", "BEN", "eve", "Ben"), strict=True)))
    table(tmp_path, *[line.format(n) for line, n in zip(SPLIT, ("anna", "anna", "ben", "Ben"), strict=True)],
          "e.png,Anna,visible,train,1", "f.png,Anna,infrared,train,2", "g.png,Ben,visible,test,1",
          "h.png,BEN,visible,train,1", "i.png,BEN,infrared,train,1")  # fmt: skip
    paths = [note.path for note in checked(tmp_path).notes if note.kind == "look-alike"]
    assert paths == ["BEN and Ben and ben", "Anna and anna"]


def test_cameras_that_look_alike_are_named(tmp_path, capsys):
    lines = ("a.png,anna,visible,test,Gate", "b.png,anna,infrared,test,gate")
    table(tmp_path, *lines)
    assert notes(tmp_path, "look-alike")[0] == ["cameras Gate and gate look alike and count as several cameras"]
    print_check(checked(tmp_path))
    shown = capsys.readouterr().out
    assert "visible cameras: Gate (1)\ninfrared cameras: gate (1)\n" in shown


def test_notes_speak_of_names(tmp_path):
    put(tmp_path, *both("anna", "行人"), "visible/ben/1.png")
    (said,), _ = notes(tmp_path, "one modality")
    assert said.startswith("identity ben of train has visible images only, such as visible/ben/1.png")


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path, capsys):
    put(tmp_path, *both("anna", "行人"), *(f"infrared/anna/{n}.gif" for n in range(3)), "visible/anna/x.heic")
    put(tmp_path, "visible/anna/Thumbs.db", "visible/@eaDir/1.png", "infrared/anna/@eaDir/1.png", "visible/anna/2.pgm")
    found, logged = notes(tmp_path, "not read")
    assert found == [
        "infrared/anna/0.gif is not read, nor are 2 more files .gif: convert what is an image, to PNG say",
        "visible/anna/x.heic is not read: convert what is an image, to PNG say",
    ]
    assert logged == [f"{found[0]} (and 1 more, which csvi check names)"]
    print_check(checked(tmp_path))
    assert "files that are not read: 2\n" in capsys.readouterr().out


def test_files_beside_a_list_are_counted_too(tmp_path):
    """Not where the table itself lies."""
    table(tmp_path, "x/a.png,eve,visible,test,1", "x/b.png,eve,infrared,test,2")
    put(tmp_path, "x/c.gif", "notes.gif")
    assert notes(tmp_path, "not read") == (["x/c.gif is not read: convert what is an image, to PNG say"], [])


def test_images_in_no_persons_folder_are_said_even_where_no_image_is_read(tmp_path):
    put(tmp_path, "visible/行人/1.png", "infrared/行人/day1/1.png", "infrared/loose.png")
    check = checked(tmp_path)
    unnamed = {(f.path, f.message) for f in check.notes if f.kind == "unnamed"}
    nowhere = "lies not directly in a person's folder and is not read"
    assert unnamed == {("infrared/loose.png", nowhere), ("infrared/行人/day1/1.png", nowhere)}
    logged = list(before_training(read_fold("folder", tmp_path)))
    assert f"infrared/loose.png {nowhere}, nor is 1 more image" in logged


def test_distractors_are_said(tmp_path):
    lines = [line.format(name) for line, name in zip(SPLIT, ("anna", "anna", "eve", "eve"), strict=True)]
    table(tmp_path, *lines, "e.png,-1,visible,train,1", "f.png,-1,visible,test,1", "g.png,0000,infrared,test,2")
    found, logged = notes(tmp_path, "distractor")
    name, otherwise = "-1 and 0000", "a person needs another name"
    assert found == [
        f"train has 1 image of {name}, distractors, never trained on and in no gallery: {otherwise}",
        f"test has 2 images of {name}, distractors, in galleries alone: {otherwise}",
    ]
    assert logged == [f"{found[0]} (and 1 more, which csvi check names)"]
    counted = {split.name: split.found["identities"] for split in checked(tmp_path).splits}
    assert counted == {"train": 1, "val": 0, "test": 1}


def test_a_test_in_which_all_images_are_of_one_camera_is_a_problem_before_training(tmp_path, capsys):
    lines = [line.format(name) for line, name in zip(SPLIT, ("anna", "anna", "eve", "eve"), strict=True)]
    table(tmp_path, *(line.replace(",2", ",1") for line in lines))
    check = checked(tmp_path)
    (problem,) = check.problems
    assert problem.kind == "nothing to score"
    said = f"{problem.path} {problem.message}"
    assert said.startswith(
        "test has no query with anything to find: images of a person by the query's own camera do not"
    )
    assert list(before_training(read_fold("folder", tmp_path))) == [said]
    print_check(check)
    assert "tests that find nothing: 1\n" in capsys.readouterr().out


def test_a_test_whose_people_have_one_modality_is_a_problem(tmp_path):
    table(tmp_path, "a.png,anna,visible,test,1", "b.png,eve,infrared,test,2")
    (problem,) = checked(tmp_path).problems
    assert (problem.kind, problem.path) == ("nothing to score", "test")
    assert problem.message == "has no query with anything to find: people need visible and infrared images"
    table(tmp_path, "a.png,anna,visible,test,1")
    (problem,) = checked(tmp_path).problems
    assert problem.message.startswith("cannot be searched: no infrared images: a split needs")


def test_queries_without_an_answer_are_counted(tmp_path):
    people = [f"{n}{m[0]}.png,{n},{m},test,{m[0]}" for n in range(3) for m in ("visible", "infrared")]
    table(tmp_path, *people, "x.png,x,visible,test,v", "y.png,2,visible,test,v")
    found, logged = notes(tmp_path, "unanswerable")
    assert found == ["test has 1 of 5 queries that find nothing and do not count, visible to infrared"]
    assert logged == found


def test_a_dataset_without_people_to_test_is_noted(tmp_path):
    table(tmp_path, "a.png,anna,visible,train,1", "b.png,anna,infrared,train,2")
    found, logged = notes(tmp_path, "no test")
    assert found == logged == ["test has nobody to search for: what is trained cannot be evaluated here"]


def test_nothing_is_said_of_a_whole_dataset(sysu_root, tmp_path):
    put(tmp_path, *both("anna", "行人"))
    assert notes(tmp_path) == ([], [])
    assert list(before_training(read_fold("sysu", sysu_root))) == []
