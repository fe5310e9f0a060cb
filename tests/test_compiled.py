"""A function is compiled wherever csvi is installed."""

import os
import subprocess
import sys
from functools import partial

import numba
import pytest

from csvi.compiled import compiled, kept


@pytest.mark.filterwarnings("error")
def test_without_a_folder_to_keep_the_code_in():
    nowhere = eval("lambda number: number + 1")  # of no file, so that numba has no place beside it either
    assert compiled(nowhere)(1) == 2
    assert kept(partial(numba.cfunc, "float64(float64)"), nowhere).ctypes(1.0) == 2


@pytest.mark.long
def test_metrics_are_kept_for_the_next_process(tmp_path):
    command = "import csvi.evaluate as e; assert e.score([[0.1, 0.2]], [7], [5, 7]).metrics['mAP'] == 0.5"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    times = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", command], env=environment, check=True)
        times.append({file: file.stat().st_mtime_ns for file in tmp_path.rglob("definition.*.nb?")})
    assert len({file.name.partition("-")[0] for file in times[0]}) >= 4  # chance, R-k, AP and INP
    assert times[0] == times[1]
