"""Embeddings in files: our own, and those from elsewhere, whole and broken."""

import dataclasses
import os
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from csvi.data import ImageRecord, Modality
from csvi.errors import CsviError
from csvi.runs.embeddings import kept_embeddings, key_of, read_embeddings, write_embeddings

PATHS = ["cam1/0001/0001.jpg", "cam3/0001/0001.jpg", "cam6/0002/0001.jpg"]
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def save(tmp_path, **arrays):
    np.savez(tmp_path / "features.npz", **arrays)
    return tmp_path / "features.npz"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("kind", ["U", "S"])
def test_rows_come_in_the_order_asked_for(tmp_path, dtype, kind):
    path = np.array(["train/unasked.jpg", *PATHS[::-1]]).astype(kind)
    embedding = np.concatenate([np.full((1, 4), 9), ROWS[::-1]]).astype(dtype)
    read = read_embeddings(save(tmp_path, embedding=embedding, path=path), PATHS)
    assert read.dtype == (torch.float64 if dtype == np.float64 else torch.float32)
    assert read.tolist() == ROWS.tolist()


def test_how_a_path_is_written_does_not_matter(tmp_path):
    path = np.array(["./cam1/0001/0001.jpg", "cam3\\0001\\0001.jpg", "cam6//0002/0001.jpg"])
    assert read_embeddings(save(tmp_path, embedding=ROWS, path=path), PATHS).tolist() == ROWS.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embedding": ROWS}, "lacks an array"),
        ({"embedding": ROWS, "path": np.array(PATHS, object)}, r"is no \.npz of plain arrays"),
        ({"embedding": ROWS, "path": np.arange(3)}, r"path in .*type int64: it must be \(n,\) of strings"),
        ({"embedding": ROWS, "path": np.array([PATHS])}, r"path in .* has shape \(1, 3\)"),
        ({"embedding": ROWS.astype(int), "path": np.array(PATHS)}, "embedding in .* has type int64"),
        (
            {"embedding": ROWS.astype(complex), "path": np.array(PATHS)},
            "has type complex128: it must be float16, float32",
        ),
        ({"embedding": ROWS[:2], "path": np.array(PATHS)}, r"embeddings have shape \(2, 4\): .*\(3, dimensions\)"),
        ({"embedding": ROWS[None], "path": np.array(PATHS)}, r"embeddings have shape \(1, 3, 4\)"),
        ({"embedding": np.empty((3, 0)), "path": np.array(PATHS)}, r"embeddings have shape \(3, 0\)"),
        ({"embedding": ROWS * np.nan, "path": np.array(PATHS)}, "hold NaN"),
        ({"embedding": ROWS, "path": np.array([*PATHS[:2], PATHS[0]])}, "two embeddings of 'cam1/0001/0001.jpg'"),
        (
            {"embedding": np.ones((5, 4)), "path": np.array([*PATHS, *["\x1b[2J\nx"] * 2])},
            r"two embeddings of '\\x1b\[2J\\nx': there",
        ),
        ({"embedding": ROWS, "path": np.array([*PATHS[:2], "../x.jpg"])}, r"path 2 of .*'\.\./x\.jpg'.*stay inside"),
        ({"embedding": ROWS, "path": np.array([*PATHS[:2], "/data/x.jpg"])}, "stay inside"),
        ({"embedding": ROWS[:2], "path": np.array(PATHS[:2])}, "no embedding of 1 of 3 test images, such as 'cam6"),
    ],
)
def test_bad_features(tmp_path, arrays, message):
    with pytest.raises(CsviError, match=message):
        read_embeddings(save(tmp_path, **arrays), PATHS)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off", b"\x80\x04\x95"])
def test_no_archive(tmp_path, content):
    (tmp_path / "features.npz").write_bytes(content)
    with pytest.raises(CsviError, match=r"features.npz is no \.npz of plain arrays"):
        read_embeddings(tmp_path / "features.npz", PATHS)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double here")
def test_floats_that_torch_has_not(tmp_path):
    file = save(tmp_path, embedding=ROWS.astype(np.longdouble), path=np.array(PATHS))
    with pytest.raises(CsviError, match=r"embedding in .* has type float\d+: it must be float16, float32 or float64$"):
        read_embeddings(file, PATHS)


@pytest.mark.parametrize("content", [b"0.1 0.2 0.3\n", b"\x80\x04\x95", b""])
def test_nobody_is_told_to_load_a_file_unsafely(tmp_path, content):
    file = tmp_path / "features.txt"
    file.write_bytes(content)
    with pytest.raises(CsviError) as caught:
        read_embeddings(file, PATHS)
    assert "pickle" not in str(caught.value)
    assert str(caught.value) == (
        f"{file} is no .npz of plain arrays: save it with numpy.savez(file, embedding=..., path=...), the paths as "
        "strings"
    )


@pytest.mark.parametrize("name", ["embedding", "path"])
@pytest.mark.parametrize("content", [b"", b"no array"])
def test_a_member_that_is_no_array(tmp_path, name, content):
    file = save(tmp_path, **{"embedding": ROWS, "path": np.array(PATHS)} | {name: np.array(PATHS)})
    with ZipFile(file) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with ZipFile(file, "w") as archive:
        for member, data in (members | {f"{name}.npy": content}).items():
            archive.writestr(member, data)
    with pytest.raises(CsviError, match=r"features.npz is no \.npz of plain arrays"):
        read_embeddings(file, PATHS)


def test_a_pipe_and_a_device(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for file in (tmp_path / "pipe.npz", Path("/dev/zero")):
        with pytest.raises(CsviError, match=f"^cannot read {file}: Is a pipe or a device$"):
            read_embeddings(file, PATHS)


def test_a_folder(tmp_path):
    with pytest.raises(CsviError) as caught:
        read_embeddings(tmp_path, PATHS)
    assert str(caught.value) == f"{tmp_path} is a folder: give the .npz file"


def test_a_file_that_cannot_be_opened(tmp_path):
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    with pytest.raises(CsviError, match=r"^cannot read .*loop.npz: [^\[]*symbolic links$"):
        read_embeddings(tmp_path / "loop.npz", PATHS)


def test_a_damaged_archive(tmp_path):
    np.savez_compressed(tmp_path / "features.npz", embedding=np.tile(ROWS, (1, 99)), path=np.array(PATHS))
    whole = (tmp_path / "features.npz").read_bytes()
    for at in range(0, len(whole), 3):
        (tmp_path / "features.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with suppress(CsviError):  # and nothing else
            read_embeddings(tmp_path / "features.npz", PATHS)


def test_no_file(tmp_path):
    with pytest.raises(CsviError, match="no such file"):
        read_embeddings(tmp_path / "features.npz", PATHS)


def test_a_single_array_is_not_enough(tmp_path):
    np.save(tmp_path / "features.npy", ROWS)
    with pytest.raises(CsviError, match="lacks an array"):
        read_embeddings(tmp_path / "features.npy", PATHS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_is_written_is_read(tmp_path, dtype):
    file = tmp_path / "embeddings.npz"
    write_embeddings(file, torch.from_numpy(ROWS).to(dtype), PATHS, "a key")
    read = read_embeddings(file, PATHS[::-1])
    assert read.dtype == torch.float32
    assert read.tolist() == ROWS[::-1].tolist()
    assert kept_embeddings(file, PATHS, "a key").tolist() == ROWS.tolist()
    with np.load(file) as arrays:
        assert arrays["embedding"].dtype == str(dtype).removeprefix("torch.")


def test_embeddings_of_something_else_are_not_kept(tmp_path):
    file = tmp_path / "embeddings.npz"
    assert kept_embeddings(file, PATHS, "a key") is None
    write_embeddings(file, torch.from_numpy(ROWS), PATHS, "a key")
    assert kept_embeddings(file, PATHS, "another") is None
    assert kept_embeddings(file, [*PATHS, "cam6/0002/0002.jpg"], "a key") is None
    whole = file.read_bytes()
    for content in (whole[:-200], b"", b"no archive"):
        file.write_bytes(content)
        assert kept_embeddings(file, PATHS, "a key") is None
    np.savez(file, embedding=ROWS, path=np.array(PATHS))  # of other code: nobody knows what it was computed from
    assert kept_embeddings(file, PATHS, "") is None


def test_a_key_says_what_embeddings_are_computed_from(tmp_path):
    weights, records = tmp_path / "weights", [ImageRecord("a.jpg", 1, 1, Modality.VISIBLE)]
    weights.write_bytes(b"w")
    (tmp_path / "a.jpg").write_bytes(b"image")

    def key(*settings, records=records):
        return key_of(weights, tmp_path, records, *settings)

    keys = [key(), key("flip"), key(records=[])]
    (tmp_path / "a.jpg").write_bytes(b"another image")
    keys.append(key())
    os.utime(tmp_path / "a.jpg", ns=(0, 0))
    keys.append(key())
    weights.write_bytes(b"v")
    keys.append(key())
    assert len(set(keys)) == 6
    assert key() == key() == key(records=[dataclasses.replace(records[0], identity=2)])  # scoring's matter
