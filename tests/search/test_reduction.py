"""Shorter embeddings: principal components of the training images, kept beside the weights that they are of."""

import shutil

import numpy as np
import pytest

import csvi
from csvi.errors import CsviError
from csvi.export.reduction import Reduction, reduction_of
from csvi.model.weights import fingerprint_of
from csvi.runs import Run
from csvi.runs.trained import Trained


@pytest.fixture
def embeddings():
    """Sixty embeddings of twenty numbers that vary in five directions, and a little in all others."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(60, 5)) @ rng.normal(size=(5, 20)) + 0.01 * rng.normal(size=(60, 20)) + 1).astype(
        np.float32
    )


@pytest.fixture
def run(coseg_run, tmp_path):
    shutil.copytree(coseg_run, tmp_path / "run")
    return tmp_path / "run"


def reduced(run, dimensions):
    """The reduction of a run, as a command asks for it."""
    return reduction_of(run, dimensions, 48, Trained.open(str(run)).config)


def test_distances_stay_if_what_is_left_out_does_not_vary(embeddings):
    reduction = Reduction.fit(embeddings, 5)
    reduced = (embeddings - reduction.mean) @ reduction.components.T
    assert reduced.shape == (60, 5)
    before, after = (np.linalg.norm(values[:, None] - values, axis=2) for values in (embeddings, reduced))
    np.testing.assert_allclose(after, before, rtol=0, atol=0.15)  # of distances of 6 on average
    np.testing.assert_allclose(reduction.components @ reduction.components.T, np.eye(5), rtol=0, atol=1e-5)
    np.testing.assert_allclose(reduction(embeddings), reduced / np.linalg.norm(reduced, axis=1)[:, None], rtol=1e-5)


def test_no_other_directions_explain_more(embeddings):
    reduction = Reduction.fit(embeddings, 5)
    explained = ((embeddings - reduction.mean) @ reduction.components.T).var(0)
    largest = np.linalg.eigvalsh(np.cov(embeddings.T, bias=True))[::-1][:5]
    np.testing.assert_allclose(explained, largest, rtol=1e-3)


def test_what_is_saved_is_read(embeddings, tmp_path):
    reduction, file = Reduction.fit(embeddings, 5), tmp_path / "reduction.safetensors"
    reduction.save(file, "ab")
    read = Reduction.load(file, "ab")
    assert read.name == reduction.name
    assert (read(embeddings) == reduction(embeddings)).all()
    assert Reduction.load(file, "cd") is None  # of another network
    assert Reduction.load(tmp_path / "nowhere", "ab") is None
    file.write_bytes(file.read_bytes()[:50])
    assert Reduction.load(file, "ab") is None


@pytest.mark.parametrize("dimensions", [0, 21, 60])
def test_more_numbers_than_there_are_is_one_sentence(embeddings, dimensions):
    with pytest.raises(CsviError, match=f"cannot reduce embeddings to {dimensions} numbers.* from 1 to 20"):
        Reduction.fit(embeddings, dimensions)
    with pytest.raises(CsviError, match="from 1 to 9"):
        Reduction.fit(embeddings[:10], 10)


def test_it_is_found_on_training_images_alone_and_once(run, monkeypatch):
    reduction = reduced(run, 12)
    opened = Run.open(run)
    trained = csvi.load(run).embed([opened.benchmark.file(record) for record in opened.benchmark.train], "detect")
    np.testing.assert_allclose(reduction.mean, trained.mean(0), rtol=0, atol=1e-5)
    monkeypatch.setattr("csvi.export.reduction.embed", None)  # which is not called again
    assert reduced(run, 12).name == reduction.name
    assert (run / "reduction-12.safetensors").is_file()


def test_a_network_that_was_trained_further_has_another(run):
    first = reduced(run, 12)
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(weights[:-4] + np.float32(0.5).tobytes())
    again = reduced(run, 12)
    assert Reduction.load(run / "reduction-12.safetensors", fingerprint_of(run)).name == again.name != first.name


def test_a_model_alone_needs_the_file(run):
    first = reduced(run, 12)
    (run / "config.yaml").unlink()
    assert reduced(run, 12).name == first.name
    with pytest.raises(CsviError, match=r"is a model alone: .* leave --dimensions away"):
        reduced(run, 13)


@pytest.mark.parametrize("dimensions", [0, -3, 49])
def test_dimensions_that_cannot_be_are_refused_before_anything_is_embedded(run, dimensions, monkeypatch):
    monkeypatch.setattr("csvi.export.reduction.embed", None)
    with pytest.raises(CsviError, match=f"--dimensions {dimensions}: .* have 48 numbers, give 1 to 48"):
        csvi.load(run, dimensions)


def test_a_run_folder_that_cannot_be_written_is_one_sentence(run, embeddings, monkeypatch):
    file = run / "reduction-5.safetensors"
    file.mkdir()
    with pytest.raises(CsviError, match=rf"cannot write {file}: "):
        Reduction.fit(embeddings, 5).save(file, "ab")
    monkeypatch.setattr("csvi.export.reduction.embed", None)  # nothing is embedded in vain
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(CsviError, match=f"cannot write to the run folder {run}, in which reduction-12.safetensors is"):
        reduced(run, 12)


def test_a_reduced_embedder_is_another_model(run, sysu_root):
    files = sorted(sysu_root.glob("cam*/0013/0001.jpg"))
    full, short = csvi.load(run), csvi.load(run, dimensions=12)
    assert short.fingerprint.startswith(f"{full.fingerprint}-pca12-")
    assert short.dim == 12
    found = short.embed(files)
    np.testing.assert_allclose(found, reduced(run, 12)(full.embed(files)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
