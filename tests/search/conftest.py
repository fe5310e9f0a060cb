"""Embeddings of crops that nobody photographed, to fill galleries with."""

import numpy as np
import pytest

from csvi.search.features import Features

FINGERPRINT = "0123456789abcdef"


@pytest.fixture(scope="session")
def make_features():
    """Makes embeddings."""
    return _features


def _features(count=60, dim=8, root="/crops", seed=0, name="a run", fingerprint=FINGERPRINT, lengths=1.0):
    """So many embeddings of this length: 5 cameras, every third infrared, a second apart, tracks of 4, some of none."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    vectors *= lengths / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = range(count)
    return Features(
        embedding=vectors.astype(np.float32),
        path=np.array([f"c/{n:05d}.jpg" for n in rows]),
        modality=np.array(["infrared" if n % 3 == 0 else "visible" for n in rows]),
        camera=np.array(["" if n % 5 == 0 else f"{n % 5}" for n in rows]),
        time=np.array(["" if n % 7 == 0 else f"2024-05-01T12:{n // 60 % 60:02d}:{n % 60:02d}" for n in rows]),
        track=np.array(["" if n % 11 == 0 else f"t{n // 4}" for n in rows]),
        facts={"fingerprint": fingerprint, "name": name, "dim": dim, "root": root, "version": "0.1.0"},
    )


@pytest.fixture
def uri(tmp_path):
    """Name of a gallery that is not there yet."""
    return str(tmp_path / "gallery.db")
