"""`csvi index add` killed at any moment: what it had added is kept, nothing is twice, and the same command resumes."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from csvi.search.features import write_features
from csvi.search.gallery import open_gallery
from csvi.search.query import search

NURSERY = """
import os, sys
sys.modules["torch"] = None  # nothing here needs it
import csvi.commands.embed, csvi.commands.index, faiss, milvus_lite.adapter.grpc.server, pymilvus
from csvi.cli import main
from csvi.search import fill, gallery

fill.BATCH = 16

def add(self, embeddings, entries, add=gallery.Gallery.add):
    add(self, embeddings, entries)
    os.write(kept, "".join(f"{entry.path}\\n" for entry in entries).encode())

gallery.Gallery.add = add
for line in sys.stdin:
    if not (child := os.fork()):
        kept = os.open(line.split()[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os._exit(main(line.split()[1:]))
    print(child, flush=True)
    print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs commands that it is told, in processes that need not import anything, and lists the images that were added."""


@pytest.fixture
def nursery():
    """Milvus Lite writes segments, joins them and indexes them all the time: its log holds 6 kB."""
    small = {"MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": "6000", "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", NURSERY], env=os.environ | small, **pipes) as process:
        yield process
        process.stdin.close()


def start(nursery, *words):
    nursery.stdin.write(" ".join(map(str, words)) + "\n")
    nursery.stdin.flush()
    return int(nursery.stdout.readline())


def ended(nursery):
    """Exit status, of the command or of the signal, negative."""
    while not (line := nursery.stdout.readline()).startswith("status"):
        pass
    return int(line.split()[1])


def check_kills(nursery, features, folder, kills, longest, seed):
    """Kill the command so many times within so many seconds, from the beginning and on the way."""
    file, uri, kept = folder / "f.npz", folder / "g.db", folder / "kept"
    write_features(file, features)
    command = kept, "index", "add", file, "--gallery", uri, "--index_type", "HNSW"
    rng, killed = random.Random(seed), 0
    while killed < kills:
        if killed % 4 == 0:
            shutil.rmtree(uri, ignore_errors=True)
            kept.unlink(missing_ok=True)
        child = start(nursery, *command)
        time.sleep(rng.uniform(0, longest) ** 2 / longest)  # often early on, where a gallery is made
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if ended(nursery) == 0:  # it was faster
            shutil.rmtree(uri)
            kept.unlink()
            continue
        killed += 1
        added = kept.read_text().split() if kept.exists() else []
        if added:
            with open_gallery(str(uri)) as gallery:
                paths = [entry.path for entry in gallery.entries()]
                assert set(added) <= set(paths)
                assert len(gallery) == len(paths) == len(set(paths))
    start(nursery, *command)
    assert ended(nursery) == 0
    with open_gallery(str(uri)) as gallery:
        assert [entry.path for entry in gallery.entries()] == sorted(features.path.tolist())
        assert len(gallery) == len(features)
        for row in (0, 7, len(features) - 1):
            assert search(gallery, features.embedding[row : row + 1], 1)[0].path == features.path[row]
            assert np.isclose(search(gallery, features.embedding[row : row + 1], 1)[0].similarity, 1)


@pytest.mark.slow
def test_a_kill_at_any_of_twenty_moments_loses_nothing_and_doubles_nothing(nursery, make_features, tmp_path):
    check_kills(nursery, make_features(600, 16), tmp_path, kills=20, longest=0.35, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
def test_nor_do_a_thousand_kills(nursery, make_features, tmp_path, seed):
    check_kills(nursery, make_features(3000, 16), tmp_path, kills=200, longest=1.0, seed=seed)
