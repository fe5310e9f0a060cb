"""How threads wait is decided before torch is loaded, and by the user where the user has said so."""

import os
import subprocess
import sys

import pytest

from csvi.threads import SPIN, WAITING, let_threads_sleep


@pytest.fixture
def nothing_said(monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nothing_said")
def test_threads_sleep_soon():
    let_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == SPIN


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_says_stays(name, monkeypatch):
    monkeypatch.setenv(name, "7")
    let_threads_sleep()
    assert {key: os.environ.get(key) for key in WAITING} == dict.fromkeys(WAITING) | {name: "7"}


@pytest.mark.usefixtures("nothing_said")
def test_the_command_line_decides_it_before_torch_is_there():
    code = """
import os, sys
from csvi import cli
def command(name):
    assert "torch" not in sys.modules
    sys.exit(0 if os.environ.get("GOMP_SPINCOUNT") else 1)
cli._command = command
cli.main(["methods"])
"""
    subprocess.run([sys.executable, "-c", code], check=True)
