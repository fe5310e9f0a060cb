"""Files of embeddings: what is written is read, and what is another's is one sentence."""

import dataclasses
import json
import sys

import numpy as np
import pyarrow.parquet
import pytest

from csvi.errors import CsviError
from csvi.search.features import Features, read_features, write_features

FACTS = {"fingerprint": "0123456789abcdef", "name": "a run", "dim": 4, "root": "/crops", "version": "0.1.0"}


@pytest.fixture
def features():
    return Features(
        embedding=np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
        path=np.array(["cam1/a.jpg", "cam3/b.jpg", "cam3/ü c.jpg"]),
        modality=np.array(["visible", "infrared", "infrared"]),
        camera=np.array(["1", "", "door, north"]),
        time=np.array(["2024-05-01T12:00:00", "", "2024-05-01T12:00:00+02:00"]),
        track=np.array(["", "3-17", ""]),
        facts=FACTS,
    )


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_written_is_read(features, tmp_path, suffix, dtype):
    written = dataclasses.replace(features, embedding=features.embedding.astype(dtype))
    file = tmp_path / f"f{suffix}"
    write_features(file, written)
    read = read_features(file)
    assert read.embedding.dtype == dtype
    assert (read.embedding == written.embedding).all()
    assert read.same_columns(written)
    assert read.facts == FACTS
    assert len(read) == 3
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_other_programs_read_parquet(features, tmp_path):
    write_features(tmp_path / "f.parquet", features)
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["path", "modality", "camera", "time", "track", "embedding"]
    assert table["camera"].to_pylist() == ["1", "", "door, north"]
    assert np.allclose(table["embedding"].to_pylist(), features.embedding)
    assert json.loads(table.schema.metadata[b"csvi"]) == FACTS


BAD = [
    ({"embedding": np.zeros((3, 4))}, r"embeddings are of shape \(3, 4\) and type float64"),
    ({"embedding": np.zeros((3, 5), np.float32)}, "embeddings are not of dim 4"),
    ({"embedding": np.zeros(3, np.float32)}, r"embeddings are of shape \(3,\)"),
    ({"embedding": np.ones((), np.float32)}, r"embeddings are of shape \(\)"),
    ({"embedding": np.full((3, 4), np.nan, np.float32)}, "hold NaN or infinity"),
    ({"embedding": np.full((3, 4), np.inf, np.float16)}, "hold NaN or infinity"),
    ({"path": np.array(["a.jpg", "b.jpg"])}, r"path is of shape \(2,\)"),
    ({"camera": np.arange(3)}, r"camera is of shape \(3,\) and type int64"),
    ({"path": np.array(["a.jpg", "b.jpg", "a.jpg"])}, "two embeddings of one image"),
    ({"path": np.array(["a.jpg", "b.jpg", "../../etc/passwd"])}, r"path 2 of .*stay inside"),
    ({"path": np.array(["a.jpg", "/etc/passwd", "c.jpg"])}, r"path 1 of .*stay inside"),
    ({"modality": np.array(["visible", "thermal", "infrared"])}, "modality holds 'thermal'"),
    ({"time": np.array(["", "", "yesterday"])}, "time holds 'yesterday'"),
    ({"facts": {**FACTS, "fingerprint": 3}}, "does not say its fingerprint"),
    ({"facts": {**FACTS, "model": 3}}, "does not say its model"),
    ({"facts": {**FACTS, "infrared_range": "5,1"}}, "infrared_range is '5,1': it must be auto, or two numbers"),
    ({"facts": {"dim": 4}}, "does not say its fingerprint"),
]


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_does_not_fit_together_is_neither_written_nor_read(
    features, tmp_path, monkeypatch, suffix, change, message
):
    file = tmp_path / f"f{suffix}"
    bad = dataclasses.replace(features, **change)
    with pytest.raises(CsviError, match=message):
        write_features(file, bad)
    assert not file.exists()
    if suffix == ".npz":  # whose columns may be of any shape and type
        np.savez(file, embedding=bad.embedding, facts=np.array(json.dumps(bad.facts)), **bad.columns)
        with pytest.raises(CsviError, match=message):
            read_features(file)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_damaged_file_is_one_sentence(features, tmp_path, suffix):
    file = tmp_path / f"f{suffix}"
    write_features(file, features)
    whole = file.read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2], whole[:-1]):
        file.write_bytes(content)
        with pytest.raises(CsviError, match=rf"f{suffix} is "):
            read_features(file)
    for at in range(0, len(whole), 41):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            read_features(file)
        except CsviError:
            continue  # and nothing else


def test_files_of_others_are_one_sentence(features, tmp_path):
    np.savez(tmp_path / "f.npz", embedding=features.embedding, path=features.path)
    with pytest.raises(CsviError, match=r"f.npz lacks an array: it must hold `embedding` \(n, d\), `path`"):
        read_features(tmp_path / "f.npz")
    np.savez(tmp_path / "f.npz", embedding=features.embedding, facts=np.array("none"), **features.columns)
    with pytest.raises(CsviError, match="does not say which model its embeddings are of"):
        read_features(tmp_path / "f.npz")
    table = pyarrow.table({"embedding": features.embedding.tolist(), "path": features.path.tolist()})
    pyarrow.parquet.write_table(table, tmp_path / "f.parquet")
    with pytest.raises(CsviError, match=r"f.parquet is no Parquet file of csvi .*csvi embed"):
        read_features(tmp_path / "f.parquet")
    with pytest.raises(CsviError, match=r"f.txt must end in \.npz or \.parquet"):
        read_features(tmp_path / "f.txt")
    for suffix in (".npz", ".parquet"):
        with pytest.raises(CsviError, match=r"[Nn]o such file"):
            read_features(tmp_path / f"nowhere{suffix}")


def test_what_a_terminal_would_obey_is_replaced(features, tmp_path):
    facts = {**FACTS, "name": "a\x1b[2Jrun\n", "model": "/runs/\x9b31mü"}
    write_features(tmp_path / "f.npz", dataclasses.replace(features, facts=facts))
    read = read_features(tmp_path / "f.npz").facts
    assert (read["name"], read["model"]) == ("a?[2Jrun?", "/runs/?31mü")


def test_a_name_that_is_no_utf_8_needs_an_npz(features, tmp_path):
    odd = dataclasses.replace(features, path=np.array(["a.jpg", "b.jpg", "\udcff.jpg"]))
    with pytest.raises(CsviError, match=r"f.parquet holds UTF-8 alone.*write an \.npz"):
        write_features(tmp_path / "f.parquet", odd)
    write_features(tmp_path / "f.npz", odd)
    assert read_features(tmp_path / "f.npz").same_columns(odd)


def test_without_pyarrow_the_extra_is_named(features, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(CsviError, match=r"f.parquet needs pyarrow: pip install 'csvi\[search\]'"):
        write_features(tmp_path / "f.parquet", features)
