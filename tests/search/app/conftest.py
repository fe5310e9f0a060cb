"""A gallery of the test images of a tiny run, and what the page asks it by."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from csvi.runs import Run
from csvi.search.app.desk import Desk
from csvi.search.gallery import Entry, Facts, make_gallery
from csvi.search.torch_embedder import TorchEmbedder

START = datetime(2024, 5, 1, 22, 30, tzinfo=UTC)


class Apart(TorchEmbedder):
    """The network of a run, but embeddings are random projections of pixels: those of two steps are all alike.

    They are as long as those of six parts.
    """

    def embed_pixels(self, images, modality):
        pixels = images.reshape(len(images), -1) / 255 - 0.5
        projected = pixels @ np.random.default_rng(0).standard_normal((pixels.shape[1], 48))
        return (6**0.5 * projected / np.linalg.norm(projected, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def embedder(coseg_run):
    return Apart(str(coseg_run))


@pytest.fixture(scope="session")
def records(coseg_run):
    return Run.open(coseg_run).benchmark.test


@pytest.fixture(scope="session")
def embeddings(embedder, records, sysu_root):
    """Of the records, (n, 48)."""
    return embedder.embed([sysu_root / record.path for record in records], [record.modality for record in records])


@pytest.fixture(scope="session")
def gallery_of(embedder):
    """Makes a gallery for images of a folder."""

    def make(file, root, embeddings=(), entries=()):
        facts = Facts(embedder.fingerprint, "a run", embedder.dim, "cosine", "FLAT", False, str(root))
        gallery = make_gallery(str(file), facts)
        if len(entries):
            gallery.add(embeddings, entries)
        return gallery

    return make


@pytest.fixture(scope="session")
def desk(gallery_of, embedder, records, embeddings, sysu_root, tmp_path_factory):
    """A minute between images, those of a person and a camera are a track; of every seventh no time is known."""
    entries = [
        Entry(
            path=record.path,
            modality=record.modality.word,
            camera=str(record.camera),
            time=(START + timedelta(minutes=n)).isoformat() if n % 7 else "",
            track=f"{record.identity}-{record.camera}",
        )
        for n, record in enumerate(records)
    ]
    with gallery_of(tmp_path_factory.mktemp("app") / "gallery.db", sysu_root, embeddings, entries) as gallery:
        yield Desk(gallery, embedder)
