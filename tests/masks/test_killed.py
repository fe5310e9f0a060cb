"""`csvi masks` in a process of its own, which is killed in the middle: every mask is whole, and nothing is lost."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from csvi.masks.make import LIST, read_list

SEGMENTER = """
import time
import numpy as np
from csvi.masks.segmenter import Segmenter

class Slow(Segmenter):
    name = "slow"

    def probabilities(self, images):
        time.sleep(0.002)
        return [(image[..., 0] / 255).astype(np.float32) for image in images]
"""


@pytest.fixture
def crops(tmp_path):
    """Ninety crops of a bright person."""
    rng = np.random.default_rng(0)
    (tmp_path / "crops").mkdir()
    for n in range(90):
        pixels = np.zeros((48, 24, 3), np.uint8)
        pixels[4:44, 6:18] = rng.integers(230, 255, (40, 12, 3))
        Image.fromarray(pixels).save(tmp_path / "crops" / f"{n:02d}.png")
    (tmp_path / "slow.py").write_text(SEGMENTER)
    return tmp_path / "crops"


def start(crops, out):
    """The command, in batches of two so that there are many places to be killed at."""
    code = (
        "import sys, csvi.masks.make as make; make.BATCH = 2; from csvi.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "masks", str(crops), "--out", str(out), "--segmenter", "slow:Slow"]
    environment = os.environ | {"PYTHONPATH": str(crops.parent)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def contents(out):
    return {file.relative_to(out): file.read_bytes() for file in sorted(out.rglob("[!.]*")) if file.is_file()}


@pytest.mark.slow
def test_masks_survive_a_kill_at_any_moment(crops, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(crops, whole)
    printed, _ = process.communicate()
    assert (process.returncode, "90 of 90 masks are used" in printed) == (0, True)
    moments, interrupted = random.Random(0), 0
    for _ in range(4):
        process = start(crops, killed)
        while process.poll() is None and not (killed / LIST).is_file():
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        interrupted += process.returncode == -signal.SIGKILL
        for line in read_list(killed) if (killed / LIST).is_file() else []:
            np.asarray(Image.open(killed / line.mask))  # decodes
    assert interrupted >= 2
    process = start(crops, killed)
    process.communicate()
    assert process.returncode == 0
    assert contents(killed) == contents(whole)


@pytest.mark.slow
def test_masks_in_the_folder_of_crops_are_no_crops_the_second_time(crops):
    for new in (90, 0):
        process = start(crops, crops / "masks")
        printed, _ = process.communicate()
        assert "90 of 90 masks are used" in printed
        assert (f"{new} new masks" in printed) == (new > 0)
