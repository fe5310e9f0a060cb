"""What the readers share: lists of images, names of files, masks."""

import os
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csvi.data.files import (
    attach_masks,
    check_disjoint,
    dataset_root,
    folder_names,
    image_names,
    is_synthetic,
    other_mask,
    path_inside,
    read_labels,
    read_text,
    title_of,
    why_no_mask,
)
from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError


def listed(tmp_path, content):
    file = tmp_path / "train_vis.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_labels(tmp_path, file.name, "RegDB")


@pytest.mark.parametrize(
    "content",
    [
        "a/1.jpg 0\nb/2.jpg 1\n",
        "a/1.jpg 0\r\nb/2.jpg 1\r\n",
        "a/1.jpg 0\rb/2.jpg 1",
        "\ufeffa/1.jpg 0\nb/2.jpg 1",
        "\n\n  a/1.jpg   0  \n \t \nb/2.jpg\t001\n\n",
        "a\\1.jpg 0\n.\\b\\2.jpg 1\n",
        "./a//1.jpg 0\nb/./2.jpg 1\n",
        "a/1.jpg 0\nb/2.jpg 1\n".encode("utf-16"),
    ],
    ids=["plain", "CRLF", "CR", "BOM", "blanks and tabs", "backslashes", "dots", "UTF-16"],
)
def test_lists_as_people_have_them(tmp_path, content):
    assert list(listed(tmp_path, content).items()) == [("a/1.jpg", 0), ("b/2.jpg", 1)]


def test_names_may_hold_spaces_and_any_letters(tmp_path):
    names = ["a b/1 2.jpg", "Größe/行人.jpg", "0/\u2028x.jpg", "a  b.jpg", "{}.jpg", "[red].jpg"]
    assert list(listed(tmp_path, "".join(f"{name} 3\n" for name in names))) == names


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.jpg", r"is 'b.jpg': it must be a path, a space and a label"),
        ("7", r"is '7': it must be a path"),
        ("b.jpg -1", r"has the label '-1': labels are integers from 0 to 999999999"),
        ("b.jpg 1.0", r"has the label '1.0'"),
        ("b.jpg 1000000000", r"has the label '1000000000'"),
        ("b.jpg " + "9" * 5000, r"has the label '9{40}'"),
        ("b.jpg \u0663", r"has the label '\u0663'"),
        ("/b.jpg 1", r"names '/b.jpg': paths must be relative to the dataset's folder and stay inside it"),
        ("//host/b.jpg 1", r"names '//host/b.jpg': paths must be relative"),
        ("\\\\host\\b.jpg 1", r".*: paths must be relative"),
        ("../b.jpg 1", r"names '../b.jpg': paths must be relative"),
        ("a\\..\\..\\b.jpg 1", r".*: paths must be relative"),
        ("C:\\b.jpg 1", r".*: paths must be relative"),
        ("c:b.jpg 1", r".*: paths must be relative"),
        (". 1", r"names '.': paths must be relative"),
        ("b\0.jpg 1", r"names 'b\\x00.jpg': paths must be relative"),
        ("./a.jpg 1", r"names a.jpg again: every image must be listed once"),
    ],
)
def test_bad_line(tmp_path, line, message):
    with pytest.raises(CsviError, match=rf"^line 3 of .*train_vis.txt {message}"):
        listed(tmp_path, f"a.jpg 0\r\n\r\n{line}\r\nc.jpg 1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train_vis.txt is empty: it must hold a line with path and label for each image"),
        (b" \r\n\r\n", r"train_vis.txt is empty"),
        (b"\xfea.jpg 0", r"cannot read .*train_vis.txt as text \(byte 0 is not UTF-8\): save it as UTF-8"),
        (b"\xff\xfea", r"cannot read .*train_vis.txt as text \(byte 2 is not UTF-16-LE\): save it as UTF-8"),
        (b"a.jpg 0\nJos\xe9.jpg 1", r"cannot read .*train_vis.txt as text \(byte 11 "),
    ],
)
def test_bad_list(tmp_path, content, message):
    with pytest.raises(CsviError, match=message):
        listed(tmp_path, content)


def test_no_list(tmp_path):
    with pytest.raises(CsviError, match=r"^no .*train_vis.txt: RegDB comes with it, copy it from there$"):
        read_text(tmp_path / "train_vis.txt", "RegDB")
    with pytest.raises(CsviError, match=r"^cannot read .*: Is a directory$"):
        read_text(tmp_path, "RegDB")


def test_a_pipe_or_a_device_is_no_list(tmp_path):
    os.mkfifo(tmp_path / "train_vis.txt")
    for file in (tmp_path / "train_vis.txt", Path("/dev/zero")):
        with pytest.raises(CsviError, match=f"^cannot read {file}: Is a pipe or a device$"):
            read_text(file, "RegDB")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: file.symlink_to("/dev/zero")])
def test_a_readme_that_is_no_file(tmp_path, make):
    make(tmp_path / "README")
    assert not is_synthetic(tmp_path)
    assert title_of(tmp_path, "RegDB") == "RegDB"


LINES = st.lists(st.text(st.sampled_from("ab.jpg/\\: 01-\t\0é\u2028"), max_size=12), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.binary(max_size=60) | LINES.map(lambda lines: "\n".join(lines).encode()))
def test_any_list_is_read_or_named(tmp_path, content):
    try:
        labels = listed(tmp_path, content)
    except CsviError as error:
        assert str(tmp_path / "train_vis.txt") in str(error)  # noqa: PT017
    else:
        assert labels
        assert all(path == path_inside(path, "") for path in labels)
        assert all((tmp_path / path).is_relative_to(tmp_path) and ".." not in path.split("/") for path in labels)
        assert all(0 <= label < 10**9 for label in labels.values())


def test_image_names(tmp_path):
    for name in ("b.JPG", "a.webp", "d.jfif", "e.PGM", "._a.jpg", ".jpg", "c.gif", "notes.txt", "ü.tiff"):
        (tmp_path / name).touch()
    (tmp_path / "person").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "person")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert image_names(tmp_path) == ["a.webp", "b.JPG", "d.jfif", "e.PGM", "ü.tiff"]
    assert image_names(tmp_path / "nowhere") == folder_names(tmp_path / "nowhere") == []
    (tmp_path / "loop").unlink()
    assert folder_names(tmp_path) == ["link", "person"]


def test_a_list_names_images_in_another_unicode_form_than_the_disk(tmp_path):
    """As a list from a Mac does, of a folder that was unpacked on Linux; and the reverse."""
    for name in ("Zo\u00eb.jpg", "Re\u0301mi.jpg"):
        (tmp_path / name).touch()
    labels = listed(tmp_path, "Zoe\u0308.jpg 1\nR\u00e9mi.jpg 2\nR\u00e9my.jpg 3")
    assert labels == {"Zo\u00eb.jpg": 1, "Re\u0301mi.jpg": 2, "R\u00e9my.jpg": 3}


def test_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def denied(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(CsviError, match=rf"^cannot list {tmp_path}: Permission denied$"):
        image_names(tmp_path)


def test_name_that_is_not_text(tmp_path, monkeypatch):
    try:
        os.close(os.open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", os.O_CREAT))
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    with pytest.raises(CsviError, match=r"holds b'caf\\xe9.jpg', a name that is not UTF-8: rename it$"):
        image_names(tmp_path)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")  # as of LC_ALL=C
    with pytest.raises(CsviError, match=r"a name that this locale cannot express: set LC_ALL=C.UTF-8$"):
        image_names(tmp_path)


def test_disjoint_in_a_folder_with_braces():
    check_disjoint({"train": [1], "test": [2]}, "identity", "{x}/{}_id.txt")
    with pytest.raises(CsviError, match=r"^identity 1 is in \{x\}/train_id.txt and in \{x\}/test_id.txt: "):
        check_disjoint({"train": [1], "test": [1]}, "identity", "{x}/{}_id.txt")


def record(path, mask=None):
    return ImageRecord(path, 0, 1, Modality.VISIBLE, mask)


def test_masks(tmp_path):
    (tmp_path / "masks" / "a").mkdir(parents=True)
    for name in ("1.PNG", "2.x.png", "3.txt"):
        (tmp_path / "masks" / "a" / name).touch()
    (tmp_path / "masks" / "top.png").touch()
    records = [record(path) for path in ("a/1.jpg", "a/2.x.bmp", "a/3.jpg", "b/1.jpg", "top.jpg")]
    found = attach_masks(tmp_path, {"train": records}, None)["train"]
    names = [r.mask and r.mask.relative_to(tmp_path / "masks").as_posix() for r in found]
    assert names == ["a/1.PNG", "a/2.x.png", None, None, "top.png"]
    assert [r.path for r in found] == [r.path for r in records]


def test_no_mask_is_that_of_two_images_and_no_image_has_one_of_two(tmp_path):
    touch(*(tmp_path / "masks" / "a" / name for name in ("1.png", "2.png", "3.png", "3.bmp")))
    touch(tmp_path / "a" / "2.jpg", tmp_path / "a" / "2.png")
    records = [record(path) for path in ("a/1.jpg", "a/2.jpg", "a/3.jpg")]
    splits = {"train": records, "test": [record("a/2.png"), *records[:1]]}  # an image in two splits is one
    found = attach_masks(tmp_path, splits, None)
    assert [r.path for split in found.values() for r in split if r.mask] == ["a/1.jpg", "a/1.jpg"]
    expected = "found a/2.png for both 2.jpg and 2.png"
    assert why_no_mask(tmp_path, tmp_path / "masks", "a/2.jpg") == expected
    assert (
        why_no_mask(tmp_path, tmp_path / "masks", "a/3.jpg") == "found a/3.bmp and a/3.png where one mask was expected"
    )
    with pytest.raises(CsviError, match=f"^no mask of any image in {tmp_path}/masks: {expected}$"):
        attach_masks(tmp_path, {"train": [records[1], record("a/2.png")]}, tmp_path / "masks")


def test_masks_of_other_images(tmp_path):
    own = record("a/1.jpg", tmp_path / "own.png")
    (tmp_path / "other" / "a").mkdir(parents=True)
    (tmp_path / "other" / "a" / "9.png").touch()
    assert attach_masks(tmp_path, {"train": [own]}, None)["train"] == [own]
    with pytest.raises(CsviError, match=r"no mask of any image in .*other: found a/9.png where a/1.png, or another"):
        attach_masks(tmp_path, {"train": [own]}, tmp_path / "other")


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/1_mask.png", "a/1.jpg"),
        ("a/1.jpg.png", "a/1.jpg"),
        ("a/IMG_1.png", "a/img_1.jpg"),
        ("masks/a/1.png", "a/1.jpg"),
        ("dataset/a/1.png", "a/1.jpg"),
        ("1.png", "a/1.jpg"),
        ("b/other.png", "a/1.jpg"),
    ],
)
def test_masks_of_other_names_are_named_beside_the_expected_ones(tmp_path, name, path):
    touch(tmp_path / "given" / name)
    expected = path.replace(".jpg", ".png")
    found = f"found {name} where {expected}, or another suffix, was expected"
    with pytest.raises(CsviError, match=f"^no mask of any image in {tmp_path}/given: {found}$"):
        attach_masks(tmp_path, {"train": [record(path)]}, tmp_path / "given")


def test_one_missing_mask_is_not_taken_for_that_of_another_image(tmp_path):
    touch(tmp_path / "a/12.png", tmp_path / "a/21.png")
    assert other_mask(tmp_path, "a/2.jpg") == ""
    touch(tmp_path / "a/2-mask.png")
    assert other_mask(tmp_path, "a/2.jpg").startswith("found a/2-mask.png ")
    touch(tmp_path / "a/2.bmp")
    assert other_mask(tmp_path, "a/2.jpg") == ""  # it is there, by its right name


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_mask_in_another_unicode_form_is_the_images(tmp_path, forms):
    of_image, of_mask = (unicodedata.normalize(form, "zoé/é.png") for form in forms)
    touch(tmp_path / "masks" / of_mask)
    (found,) = attach_masks(tmp_path, {"train": [record(of_image)]}, None)["train"]
    assert found.mask is not None
    assert found.mask.is_file()


def test_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert dataset_root(".", "RegDB", "idx") == dataset_root("~", "RegDB", "idx") == tmp_path
    with pytest.raises(CsviError, match=r"x is not a folder: give the folder of RegDB, the one that holds idx$"):
        dataset_root("x", "RegDB", "idx")
