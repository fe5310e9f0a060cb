"""`check_dataset` on datasets that are whole, and on those with one thing wrong."""

import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from csvi.analysis.dataset_table import HEADINGS, print_check
from csvi.cli import main
from csvi.config import DataConfig
from csvi.data import read_benchmark
from csvi.data.check import Check, Finding, Split, check_dataset
from csvi.data.looks import look_at_all
from csvi.data.records import Counts
from csvi.data.sysu import Sysu
from csvi.errors import CsviError

COUNTS = {
    "train": {"identities": 8, "visible": 64, "infrared": 32},
    "val": {"identities": 4, "visible": 32, "infrared": 16},
    "test": {"identities": 8, "visible": 64, "infrared": 32},
}


def checked(root, layout=None, decode=False, identities=1, **data):
    """With batches of one person: the datasets here have few people, which is not what they are about."""
    return check_dataset(DataConfig(str(root), identities=identities, **data), layout, decode)


@pytest.fixture
def sysu(sysu_root, tmp_path):
    """A whole dataset that says itself what it should hold."""
    root = shutil.copytree(sysu_root, tmp_path / "sysu")
    (root / "counts.json").write_text(json.dumps(COUNTS))
    return root


@pytest.fixture
def regdb(tmp_path):
    """Three folds of four people, with two images each, rendered by a rule; nobody says what it should hold."""
    root = tmp_path / "regdb"
    (root / "idx").mkdir(parents=True)
    (root / "README").write_text("SYNTHETIC")
    for person in range(4):
        for folder in ("Visible", "Thermal"):
            for n in (0, 1):
                put(root / folder / f"{person}" / f"{n}.png", 100 * (folder == "Thermal") + 10 * person + n)
    for fold, (train, test) in enumerate((("01", "23"), ("02", "13"), ("12", "03")), start=1):
        for split, people in (("train", train), ("test", test)):
            for folder in ("Visible", "Thermal"):
                lines = [f"{folder}/{person}/{n}.png {label}\n" for label, person in enumerate(people) for n in (0, 1)]
                (root / "idx" / f"{split}_{folder.lower()}_{fold}.txt").write_text("".join(lines))
    return root


@pytest.fixture
def people(tmp_path):
    """A table of three people, one of them to test, with masks."""
    root = tmp_path / "people"
    lines = ["path,identity,modality,split,mask"]
    for n, (name, split) in enumerate((("anna", "train"), ("ben", "train"), ("eve", "test"))):
        for m, modality in enumerate(("visible", "infrared")):
            path = f"{name}/{modality}"
            put(root / f"{path}.png", 50 * n + 20 * m + 5)
            put_mask(root / f"{path}_mask.png", lambda mask: mask)
            lines.append(f"{path}.png,{name},{modality},{split},{path}_mask.png")
    (root / "images.csv").write_text("\n".join(lines))
    return root


def put(file, grey, size=(8, 16), mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (grey,) * 3 if mode == "RGB" else grey).save(file)


def put_mask(file, change):
    """A person in the middle, changed into what other programs write."""
    mask = np.zeros((16, 8), np.uint8)
    mask[2:14, 2:6] = 255
    changed = change(mask)
    image = changed if isinstance(changed, Image.Image) else Image.fromarray(changed)
    image.save(file)


def only(findings):
    assert len(findings) == 1, findings
    return findings[0]


def test_whole_dataset(sysu, capfd):
    check = checked(sysu, decode=True)
    assert (check.layout, check.title, check.root, check.synthetic) == ("sysu", "SYSU-MM01", str(sysu), False)
    assert [(s.fold, s.name, s.found, s.expected) for s in check.splits] == [
        (1, name, counts, counts) for name, counts in COUNTS.items()
    ]
    assert check.cameras == {"visible": {1: 40, 2: 40, 4: 40, 5: 40}, "infrared": {3: 40, 6: 40}}
    assert (check.images, check.masks, check.problems, check.notes) == (240, 240, [], [])
    assert capfd.readouterr() == ("", "")  # no bar where nobody watches
    print_check(check)
    shown = capfd.readouterr().out
    assert shown.endswith("\nok (every image was decoded)\n")
    assert len(shown.splitlines()) < 24
    assert max(map(len, shown.splitlines())) <= 80 + len(str(sysu))


def test_goes_to_json_and_back(people):
    check = checked(people)
    written = json.loads(json.dumps(dataclasses.asdict(check)))
    assert written["splits"][0]["found"] == {"identities": 2, "visible": 2, "infrared": 2}
    assert written["problems"] == []


def test_relative_root(sysu, monkeypatch):
    monkeypatch.chdir(sysu.parent)
    assert checked("sysu/") == checked(sysu)


def test_what_the_dataset_should_hold(sysu):
    (sysu / "cam1/0001/0002.jpg").unlink()
    (sysu / "cam6/0001/0002.jpg").unlink()
    finding = only(checked(sysu).problems)
    assert finding == Finding("count", "train", "has 63 visible images and not 64, 31 infrared images and not 32")
    (sysu / "counts.json").unlink()
    (sysu / "README").write_text("SYNTHETIC")
    check = checked(sysu)
    assert (check.problems, check.splits[0].expected, check.synthetic) == ([], None, True)


@pytest.mark.slow
def test_sysu_mm01_itself_is_known(sysu):
    (sysu / "counts.json").unlink()
    check = checked(sysu)
    assert [Counts(**split.expected) for split in check.splits] == list(Sysu.counts.values())
    assert [f.path for f in check.problems if f.kind == "count"] == ["train", "val", "test"]
    missing = {f.path for f in check.problems if f.kind == "missing"}
    assert "cam1/0001/0003.jpg" in missing
    assert "cam1/0001/0002.jpg" not in missing
    assert missing == {path for path in Sysu().paths() if not (sysu / path).exists()}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"train": 1}', '{"train": {"people": 1}}', '{"train": {"visible": "x"}}']
)
def test_bad_counts(sysu, content):
    (sysu / "counts.json").write_text(content)
    with pytest.raises(CsviError, match=r"^.*counts.json must be like \{\"train\": "):
        checked(sysu)


def bomb(file):
    Image.new("1", (20_000, 20_000)).save(file)


BROKEN = {
    "is empty": lambda file: file.write_bytes(b""),
    "is not an image": lambda file: file.write_bytes(b"never a picture"),
    "cannot be read: Is a directory": lambda file: (file.unlink(), file.mkdir()),
    "cannot be read: Is a pipe or a device": lambda file: (file.unlink(), os.mkfifo(file)),
    "is there and cannot be read: Too many levels of symbolic links": lambda file: (
        file.unlink(),
        file.symlink_to(file.name),
    ),
    "is of more than 89,478,485 pixels, or says so": bomb,
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_file(people, message):
    BROKEN[message](people / "anna" / "visible.png")
    assert only(checked(people).problems) == Finding(
        "broken", "anna/visible.png", message.removeprefix("is there and ")
    )


def test_file_without_permission(people, monkeypatch):
    opened = Image.open

    def deny(file, **options):
        if file.name.endswith("ben/visible.png"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, **options)

    monkeypatch.setattr(Image, "open", deny)
    finding = only(checked(people).problems)
    assert finding == Finding("broken", "ben/visible.png", "cannot be read: Permission denied")


def test_truncated_image_shows_when_decoded(people):
    file = people / "anna" / "visible.png"
    noise = np.random.default_rng(0).integers(256, size=(16, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:200])
    assert not checked(people).problems
    finding = only(checked(people, decode=True).problems)
    assert (finding.kind, finding.path) == ("broken", "anna/visible.png")
    assert finding.message.startswith("cannot be ")


def test_missing_files(people):
    (people / "anna/visible.png").unlink()
    (people / "ben/infrared.png").unlink()
    (people / "ben/infrared.png").symlink_to("gone.png")
    (people / "eve/visible_mask.png").unlink()
    shutil.rmtree(people / "eve")
    (people / "eve").touch()
    findings = {(f.path, f.message) for f in checked(people).problems if f.kind == "missing"}
    assert findings == {
        ("anna/visible.png", "is not there"),
        ("ben/infrared.png", "is a link to nothing"),
        *((f"eve/{name}.png", "is not there") for name in ("visible", "infrared", "visible_mask", "infrared_mask")),
    }


def test_masks(people):
    put(people / "anna/visible_mask.png", 255, size=(8, 15), mode="L")
    put(people / "eve/visible_mask.png", 0, mode="1")
    size = Finding("mask", "anna/visible_mask.png", "is of 8x15 pixels and its image anna/visible.png of 8x16")
    assert only(checked(people).problems) == size
    check = checked(people, decode=True)
    assert only(check.problems) == size
    assert only(check.notes) == Finding("no person", "eve/visible_mask.png", "marks no person")


def test_masks_that_are_none_are_said_for_each_modality_with_the_way_out(people, capsys):
    """Labels of a parser in the visible, cut-outs in the infrared: no header shows it."""
    for name in ("anna", "ben", "eve"):
        put_mask(people / name / "visible_mask.png", lambda mask: mask // 255 * np.arange(8, dtype=np.uint8) % 19)
        cut = Image.open(people / name / "infrared.png")
        put_mask(people / name / "infrared_mask.png", lambda mask, cut=cut: cut.putalpha(Image.fromarray(mask)) or cut)
    assert not checked(people).problems
    check = checked(people, decode=True)
    assert [(f.kind, f.path, f.message.split(": ")[0]) for f in check.problems] == [
        ("mask", "visible masks", "need --data.mask_values nonzero"),
        ("mask", "infrared masks", "need --data.mask_values alpha"),
    ]
    assert not check.notes  # the labels are too dark for a person: said once, not of each mask
    assert main(["check", str(people), "--decode", "--data.mask_values", "nonzero"]) == 1
    shown = capsys.readouterr().out
    assert "visible masks" not in shown
    assert "infrared masks need --data.mask_values alpha: they are cut-outs, whose" in shown


def test_single_masks_without_an_alpha_are_named(people):
    for name in ("anna", "ben", "eve"):
        for modality in ("visible", "infrared"):
            cut = Image.open(people / name / f"{modality}.png")
            put_mask(people / name / f"{modality}_mask.png", lambda m, cut=cut: cut.putalpha(Image.fromarray(m)) or cut)
    put_mask(people / "ben/visible_mask.png", lambda mask: mask)
    problem = only(checked(people, decode=True, mask_values="alpha").problems)
    assert (problem.kind, problem.path) == ("mask", "ben/visible_mask.png")
    assert problem.message.startswith("has no alpha")


def test_a_modality_whose_masks_all_mark_nobody(people):
    for name in ("anna", "ben", "eve"):
        put_mask(people / name / "infrared_mask.png", np.zeros_like)
    check = checked(people, decode=True)
    message = "mark no person: write the person as 255 and all else as 0"
    assert only(check.problems) == Finding("mask", "infrared masks", message)


def test_masks_of_other_names_are_noted_also_where_no_image_has_one(sysu):
    for mask in sorted((sysu / "masks").glob("*/*/*.png")):
        mask.rename(mask.with_name(f"{mask.stem}.jpg.png"))
    check = checked(sysu)
    assert check.masks == 0
    note = only(check.notes)
    assert (note.kind, note.path) == ("no mask", "masks")
    found = "found cam1/0001/0001.jpg.png where cam1/0001/0001.png, or another suffix, was expected"
    assert note.message == f"holds none of any image: {found}"
    right = sysu / "masks/cam1/0001/0001.png"
    right.with_suffix(".jpg.png").rename(right)
    notes = {f.path: f.message for f in checked(sysu).notes}
    assert len(notes) == 239
    assert notes["cam2/0003/0002.jpg"].startswith("has none: found cam2/0003/0002.jpg.png where cam2/0003/0002.png,")


def test_two_images_of_one_name_have_no_mask(sysu):
    put(sysu / "cam1/0001/0001.png", 3)
    notes = {f.path: f.message for f in checked(sysu).notes if f.kind == "no mask"}
    expected = "has none: found cam1/0001/0001.png for both 0001.jpg and 0001.png"
    assert notes == {f"cam1/0001/0001.{suffix}": expected for suffix in ("jpg", "png")}


def test_images_without_mask(sysu, tmp_path):
    shutil.rmtree(sysu / "masks" / "cam1")
    check = checked(sysu)
    assert (check.problems, check.masks) == ([], 200)
    assert {(f.kind, f.message) for f in check.notes} == {("no mask", "has none")}
    assert {f.path for f in check.notes} == {f"cam1/{i:04d}/{n:04d}.jpg" for i in range(1, 21) for n in (1, 2)}
    shutil.rmtree(sysu / "masks")
    assert not checked(sysu).notes  # nobody wanted masks
    put(tmp_path / "elsewhere/cam1/0001/0001.png", 255, mode="L", size=(24, 47))
    check = checked(sysu, masks=f"{tmp_path}/elsewhere")
    assert (check.masks, only(check.problems).path) == (1, str(tmp_path / "elsewhere/cam1/0001/0001.png"))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("cam1/0001/0001.jpg", "cam1/0001/0002.jpg", "is byte for byte cam1/0001/0001.jpg"),
        ("cam1/0001/0001.jpg", "cam1/0002/0001.jpg", "is byte for byte cam1/0001/0001.jpg, of another identity"),
        (
            "cam1/0001/0001.jpg",
            "cam3/0013/0001.jpg",
            "is byte for byte cam1/0001/0001.jpg, of another identity, in another split, of the other modality",
        ),
    ],
)
def test_duplicates(sysu, first, second, message):
    shutil.copy(sysu / first, sysu / second)
    check = checked(sysu)
    assert not check.problems
    assert only(check.notes) == Finding("duplicate", second, message)


def test_duplicates_that_differ_come_first(people):
    table = (people / "images.csv").read_text()
    shutil.copy(people / "anna/visible.png", people / "anna/again.png")
    shutil.copy(people / "anna/visible.png", people / "ben/infrared.png")
    (people / "images.csv").write_text(f"{table}\nanna/again.png,anna,visible,train,anna/visible_mask.png")
    assert [f.path for f in checked(people).notes] == ["ben/infrared.png", "anna/again.png"]


def test_identity_that_training_cannot_use(sysu):
    (sysu / "counts.json").unlink()
    (sysu / "README").write_text("SYNTHETIC")
    for camera in (3, 6):
        shutil.rmtree(sysu / f"cam{camera}/0002")
        shutil.rmtree(sysu / f"cam{camera}/0013")  # of the test split, which trains nothing
    check = checked(sysu)
    assert not check.problems
    assert only(check.notes) == Finding(
        "one modality",
        "identity 2 of train",
        "has visible images only, such as cam1/0002/0001.jpg: training leaves it out",
    )


def test_a_training_set_of_nobody_and_of_fewer_people_than_a_batch(people):
    message = "counts 2 with both modalities, where a batch draws 8 people: lower --data.identities"
    assert only(checked(people, identities=8).notes) == Finding("few people", "train", message)
    table = (people / "images.csv").read_text()
    for name in ("anna", "ben"):
        table = table.replace(f"infrared.png,{name},", f"infrared.png,{name}_ir,")
    (people / "images.csv").write_text(table)
    check = checked(people)
    assert [finding.kind for finding in check.problems] == ["nothing to train"]
    assert {finding.kind for finding in check.notes} == {"one modality"}


def test_images_that_nothing_names(sysu, people, capsys):
    put(sysu / "cam1/0099/0001.png", 1)
    put(sysu / "cam2/0001.jpg", 2)
    put(sysu / "other/0001.jpg", 3)  # not in a folder of the layout
    (sysu / "cam1/0098").symlink_to(sysu / "cam1")  # leads round
    check = checked(sysu)
    assert not check.problems
    assert {(f.kind, f.path) for f in check.notes} == {("unnamed", "cam1/0099/0001.png"), ("unnamed", "cam2/0001.jpg")}

    table = (people / "images.csv").read_text()
    put(people / "top.png", 1)
    put(people / "anna/spare.png", 2)
    put(people / "elsewhere/x.png", 3)
    assert [f.path for f in checked(people).notes] == ["anna/spare.png"]
    (people / "images.csv").write_text(f"{table}\ntop.png,anna,visible,train,anna/visible_mask.png")
    put(people / "top2.png", 4)
    assert [f.path for f in checked(people).notes] == ["top2.png", "anna/spare.png"]


def test_folder_that_cannot_be_listed(people, monkeypatch):
    walk = os.walk

    def deny(top, onerror, followlinks):
        if top.name == "ben":
            onerror(PermissionError(13, "Permission denied", str(top)))
            return iter(())
        return walk(top, onerror=onerror, followlinks=followlinks)

    monkeypatch.setattr(os, "walk", deny)
    assert only(checked(people).problems) == Finding("broken", "ben", "cannot be listed: Permission denied")


def test_all_folds_are_read(regdb, capsys):
    check = checked(regdb)
    assert (check.layout, check.images, check.problems) == ("regdb", 16, [])
    assert {(s.fold, s.name) for s in check.splits} == {(t, s) for t in (1, 2, 3) for s in ("train", "val", "test")}
    assert [f.path for f in check.notes] == [f"fold {fold}" for fold in range(4, 11)]
    print_check(check)
    shown = capsys.readouterr().out
    assert "train 1–3" in shown
    assert "folds that are not there: 7\n" in shown


def test_a_fold_that_cannot_be_read(regdb, capsys):
    (regdb / "idx/test_visible_2.txt").write_text("Visible/1/0.png one")
    check = checked(regdb)
    finding = only(check.problems)
    assert (finding.kind, finding.path) == ("fold", "fold 2")
    assert finding.message.startswith(f"cannot be read: line 1 of {regdb}/idx/test_visible_2.txt has the label 'one'")
    assert {split.fold for split in check.splits} == {1, 3}
    print_check(check)
    assert "train 1, 3 " in capsys.readouterr().out
    for fold in (1, 3):
        (regdb / f"idx/train_visible_{fold}.txt").unlink()
    with pytest.raises(CsviError, match=r"^no .*train_visible_1.txt: RegDB comes with it"):
        checked(regdb, "regdb")


def test_duplicates_over_folds(regdb):
    """Person 0 trains in folds 1 and 2, person 1 in 1 and 3: in 2 and 3 they are on different sides."""
    shutil.copy(regdb / "Visible/0/0.png", regdb / "Visible/1/0.png")
    finding = only([f for f in checked(regdb).notes if f.kind == "duplicate"])
    assert {finding.path, finding.message.split(",")[0].removeprefix("is byte for byte ")} == {
        "Visible/0/0.png",
        "Visible/1/0.png",
    }
    assert finding.message.endswith(", of another identity, in another split")


def test_real_regdb_has_counts(regdb):
    (regdb / "README").unlink()
    counts = [f for f in checked(regdb).problems if f.kind == "count"]
    assert [f.path for f in counts] == [f"{split} of fold {fold}" for fold in (1, 2, 3) for split in ("train", "test")]
    assert counts[0].message.startswith("has 2 identities and not 206, 4 visible images and not 2,060, ")


def test_no_dataset(tmp_path):
    with pytest.raises(CsviError, match=r"nowhere is not a folder: give the folder of a dataset$"):
        checked(tmp_path / "nowhere")
    layouts = r"sysu \(SYSU-MM01\), regdb \(RegDB\), llcm \(LLCM\), folder \(a folder of people\)$"
    with pytest.raises(CsviError, match=rf"looks like no dataset .*--data.layout, {layouts}"):
        checked(tmp_path)
    with pytest.raises(CsviError, match=r"^no cam1…cam6 in"):
        checked(tmp_path, "sysu")


def test_long_lists_are_cut(sysu, capsys):
    for identity in range(1, 9):
        (sysu / f"cam1/{identity:04d}/0001.jpg").write_bytes(b"")
    (sysu / "cam1/0001/[red]\x1b[31m.jpg").write_bytes(b"")
    print_check(checked(sysu))
    shown = capsys.readouterr().out
    assert "\nbroken files: 9\n" in shown
    assert shown.count(" is empty\n") == 5
    assert "  and 4 more (--json lists all)\n" in shown
    assert "[red]\N{REPLACEMENT CHARACTER}[31m.jpg is empty" in shown
    assert "train 8 65 of 64 32" in " ".join(shown.split())
    assert shown.endswith("\n10 problems (every header was read; --decode decodes every image)\n")


PROBLEMS = ("fold", "count", "missing", "broken", "mask", "depth", "nothing to train", "nothing to score")


def found(kinds, each=40, splits=(), path="cam1/0001/{:04d}.jpg"):
    """A check that found so many things of each of these kinds."""
    findings = [Finding(kind, path.format(n), f"is {kind}") for kind in kinds for n in range(each)]
    return Check(
        layout="sysu",
        title="SYSU-MM01",
        root="/data",
        synthetic=False,
        decoded=False,
        splits=list(splits) or [Split(1, name, COUNTS[name], COUNTS[name]) for name in COUNTS],
        cameras={"visible": {1: 40, 2: 40, 4: 40, 5: 40}, "infrared": {3: 40, 6: 40}},
        depths={},
        images=240,
        masks=240,
        problems=[finding for finding in findings if finding.kind in PROBLEMS],
        notes=[finding for finding in findings if finding.kind not in PROBLEMS],
    )


def printed(check, capsys):
    print_check(check)
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("kinds", range(len(HEADINGS) + 1))
@pytest.mark.parametrize("each", [1, 2, 6, 40])
def test_whatever_is_found_fits_a_screen(kinds, each, capsys):
    shown = printed(found(list(HEADINGS)[:kinds], each), capsys)
    assert len(shown.splitlines()) <= 24
    assert max(map(len, shown.splitlines())) <= 80
    headed = [kind for kind in list(HEADINGS)[:kinds] if f"{HEADINGS[kind]}: {each}" in shown]
    more = re.search(r"and (\d+) more kinds? of findings", shown)
    assert len(headed) + int(more[1] if more else 0) == kinds
    assert kinds > 12 or len(headed) == kinds
    named = sum(shown.count(f".jpg is {kind}\n") for kind in HEADINGS)
    assert named >= min(each, 2) * kinds or kinds > 2
    assert "--json lists all" in shown or named == kinds * each


def test_fewer_names_where_there_are_many_kinds(capsys):
    assert printed(found(["missing"]), capsys).count(" is missing") == 5
    assert "  and 35 more (--json lists all)\n" in printed(found(["missing"]), capsys)
    assert printed(found(["missing"], each=6), capsys).count(" is missing") == 6  # and not: and 1 more
    shown = printed(found(["missing", "broken", "no mask"]), capsys)
    assert shown.count(" is missing") == shown.count(" is no mask") == 2
    shown = printed(found(HEADINGS, each=1), capsys)
    assert "missing files: 1, cam1/0001/0000.jpg is missing\n" in shown
    assert "missing files: 2, such as cam1/0001/0000.jpg is missing\n" in printed(found(HEADINGS, each=2), capsys)


def test_folds_that_differ_do_not_fill_the_screen(capsys):
    def folds(numbers):
        return [
            Split(fold, name, {"identities": n, "visible": 2060, "infrared": 2060}, {**REGDB, "identities": 206})
            for fold, n in enumerate(numbers, start=1)
            for name in ("train", "test")
        ]

    shown = printed(found(HEADINGS, splits=folds(range(10, 20))), capsys)
    assert shown.count("\ntrain ") == shown.count("\ntest ") == 3
    assert shown.count("and 7 more folds") == 2
    assert f"and {len(HEADINGS) - 7} more kinds of findings (--json lists all)\n" in shown
    assert len(shown.splitlines()) <= 24
    shown = printed(found([], splits=folds([1, 2, 3, 206, 206, 4, *[206] * 4])), capsys)
    rows = [" ".join(line.split()) for line in shown.splitlines() if line.startswith(("train", "and"))]
    assert rows == [
        "train 1 1 of 206 2,060 2,060",
        "train 2 2 of 206 2,060 2,060",
        "train 4–5, 7–10 206 2,060 2,060",
        "and 2 more folds",
        "and 2 more folds",
    ]
    shown = printed(found([], splits=folds([206] * 9 + [1])), capsys)
    assert "more fold" not in shown


REGDB = {"identities": 206, "visible": 2060, "infrared": 2060}


def test_long_lines_are_cut_in_the_middle_of_paths(capsys, monkeypatch):
    long = "a-very-long-folder/" * 9 + "of-it-all/{:04d}.jpg"
    check = dataclasses.replace(found(["broken"], each=1, path=long), root="/data" * 30)
    shown = printed(check, capsys)
    line = next(line for line in shown.splitlines() if line.endswith(" is broken"))
    assert len(line) == 80
    assert line.startswith("  a-very-long-folder/a-v")
    assert line.endswith("-long-folder/of-it-all/0000.jpg is broken")
    assert line.count("…") == 1
    title = shown.splitlines()[0]
    assert len(title) == 80
    assert title.startswith("SYSU-MM01, /data/data")
    assert title.endswith("/data/data")
    both = Finding("duplicate", long, f"is byte for byte {long}, of another identity")
    shown = printed(dataclasses.replace(check, notes=[both]), capsys)
    line = next(line for line in shown.splitlines() if "byte for byte" in line)
    assert len(line) == 80
    assert line.count("…") == 2
    assert line.endswith(", of another identity")
    words = Finding("broken", "a/b.jpg", "cannot be decoded: " + 20 * "many words ")
    shown = printed(dataclasses.replace(check, problems=[words]), capsys)
    line = next(line for line in shown.splitlines() if "a/b.jpg" in line)
    assert line.startswith("  a/b.jpg cannot be decoded: many words")
    assert line.endswith("…")
    assert len(line) <= 80
    wide = Finding("broken", "图片/" * 30 + "0001.jpg", "is empty")
    shown = printed(dataclasses.replace(check, problems=[wide]), capsys)
    line = next(line for line in shown.splitlines() if line.endswith(" is empty"))
    assert 78 <= cell_len(line) <= 80
    monkeypatch.setenv("COLUMNS", "300")
    assert f"  {long.format(0)} is broken\n" in printed(check, capsys)


def test_workers_of_ray_must_have_the_folder_of_masks_too(sysu_root, tmp_path):
    class Here:
        """In place of Ray: does the work in this process, and notes what workers must have."""

        def map(self, prepare, pieces, shared):
            self.shared = shared
            return map(prepare(), pieces)

    masks = shutil.copytree(sysu_root / "masks", tmp_path / "masks")
    data, ray = DataConfig(root=str(sysu_root), masks=str(masks)), Here()
    records = read_benchmark(data).train
    assert look_at_all(sysu_root, records, False, ray) == look_at_all(sysu_root, records, False)
    assert ray.shared[0] == sysu_root
    assert ray.shared[1] == masks
