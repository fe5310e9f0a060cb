"""What csvi says of a machine: each number is compared with another source, or with a machine that was made up."""

import json
import os
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy
import pytest
import torch
from packaging.requirements import Requirement

import csvi
from csvi.cli import main
from csvi.commands import doctor
from csvi.fabric import choose_precision
from csvi.threads import SPIN, WAITING

ROOT = Path(__file__).parents[2]
GB = 10**9


@pytest.fixture
def nothing_imported(monkeypatch):
    """Packages that are there count as whole: importing those of all extras takes seconds."""
    imported = doctor.import_module
    for_csvi = {doctor._module_of(need.name) for need in doctor.needs()}
    monkeypatch.setattr(doctor, "import_module", lambda name: name in for_csvi and imported(name))


@pytest.fixture
def look(nothing_imported, capsys):
    """What `csvi doctor --json` prints, and its status."""

    def look(*arguments, status=0):
        assert main(["doctor", "--json", *arguments]) == status
        return json.loads(capsys.readouterr().out)

    return look


def test_versions_devices_and_precision_are_those_that_a_training_has(look):
    found = look()
    versions = {package["name"]: package["version"] for package in found["packages"]}
    assert found["csvi"] == csvi.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["torch"] == metadata.version("torch")
    assert versions["numpy"] == numpy.__version__
    assert versions["lightning-fabric"] == metadata.version("lightning-fabric")
    computing = found["computing"]
    assert len(computing["devices"]) == 1 + torch.cuda.device_count()
    assert computing["chosen"].startswith("cuda" if torch.cuda.is_available() else "cpu")
    assert computing["precision"] == choose_precision()
    assert computing["cuda"] == torch.version.cuda
    assert computing["threads"] == torch.get_num_threads()
    assert found["problems"] == []


@pytest.mark.parametrize(("multiplies", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_is_shown_with_its_memory_and_the_precision_that_it_gets(multiplies, precision, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (60 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: multiplies)
    monkeypatch.setattr("csvi.fabric.make_fabric", lambda: type("Fabric", (), {"device": "cuda:0"}))
    computing = doctor._computing()
    assert [(d.bytes, d.free_bytes) for d in computing.devices] == [(None, None), *2 * [(80 * GB, 60 * GB)]]
    assert computing.devices[2].name == "cuda:1, Card 1"
    assert computing.precision == precision
    words = "multiplies" if multiplies else "does not multiply"
    assert computing.reason == f"this GPU {words} bfloat16 in hardware"


def test_why_no_gpu_is_used_is_said(monkeypatch):
    def is_available():
        doctor.warnings.warn("The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert doctor._computing().gpu_trouble == "The NVIDIA driver on your system is too old"


def test_a_gpu_that_does_not_answer_is_a_problem_in_one_line(look, monkeypatch):
    def broken():
        raise RuntimeError("CUDA error: busy\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(doctor, "_computing", broken)
    assert look(status=1)["problems"] == ["CUDA error: busy Compile with TORCH_USE_CUDA_DSA"]


def test_the_way_threads_wait_is_told_and_who_said_so(look, monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    found = look()
    assert (found["waiting"], found["waiting_from_csvi"]) == ({"GOMP_SPINCOUNT": SPIN}, True)
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    found = look()
    assert (found["waiting"], found["waiting_from_csvi"]) == ({"OMP_WAIT_POLICY": "active"}, False)


def test_what_control_groups_allow_is_told(look, monkeypatch):
    monkeypatch.setattr(doctor, "usable_cores", lambda: 0.5)
    monkeypatch.setattr(doctor, "memory_limit", lambda: 16 * GB)
    found = look()
    assert (found["usable_cores"], found["memory_limit_bytes"]) == (0.5, 16 * GB)


def test_memory_is_the_machine_s(look):
    found = look()
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["memory_bytes"] == pytest.approx(whole, rel=0.01)
    assert 0 < found["available_bytes"] < found["memory_bytes"]


def test_the_size_of_a_cache_is_that_of_its_files(look, tmp_path, monkeypatch):
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet50.pth").write_bytes(bytes(300))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("images-1.npy", "masks-2.npy"):
        (cache / name).write_bytes(bytes(1000))
    (cache / "link").symlink_to(tmp_path / "hub" / "checkpoints" / "resnet50.pth")
    folders = {folder["purpose"]: folder for folder in look(f"--data.cache={cache}")["folders"]}
    assert folders["decoded images"]["path"] == str(cache)
    assert folders["decoded images"]["files"] == 3
    assert 2000 < folders["decoded images"]["bytes"] < 2300  # the length of a link is that of its text
    assert folders["initial weights"]["bytes"] == 300
    free = os.statvfs(cache).f_bavail * os.statvfs(cache).f_frsize
    assert folders["temporary files"]["free_bytes"] == pytest.approx(free, rel=0.05)


def test_a_cache_that_is_a_file_is_a_problem(look, tmp_path):
    (tmp_path / "cache").write_text("")
    (problem,) = look(f"--data.cache={tmp_path / 'cache'}", status=1)["problems"]
    assert problem == f"the folder of decoded images, {tmp_path / 'cache'}, cannot be written to"


def test_a_full_disk_is_a_problem(tmp_path, monkeypatch, look):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: (0, 0, 0))  # it does not tell
    assert doctor._folder("decoded images", tmp_path).writable
    monkeypatch.setattr("shutil.disk_usage", lambda folder: (GB, GB, 0))
    problem, *_ = look(f"--data.cache={tmp_path}", status=1)["problems"]
    assert problem == f"the folder of decoded images, {tmp_path}, cannot be written to: no byte is free"


def test_a_folder_that_is_not_there_yet_is_empty(look, tmp_path):
    folder = look(f"--data.cache={tmp_path / 'not' / 'yet'}")["folders"][0]
    assert (folder["bytes"], folder["files"], folder["writable"]) == (0, 0, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("raise ImportError('libGL.so.1: no such file')", "cannot be imported (ImportError: libGL.so.1: no such file)"),
        ("raise RuntimeError('operator nms\\ndoes not exist')", "(RuntimeError: operator nms does not exist)"),
    ],
)
def test_a_package_that_is_broken_is_named_and_why(module, text, tmp_path, monkeypatch):
    (tmp_path / "broken_one.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(metadata, "version", lambda name: "1.5")
    monkeypatch.setattr(metadata, "files", lambda name: [])
    found = doctor.package_of(Requirement("broken-one>=1.0"))
    assert found.version == "1.5"
    assert text in found.trouble
    assert "\n" not in found.trouble
    assert doctor.package_of(Requirement("broken-one>=2.0")).trouble == "is 1.5, and must be >=2.0"


@pytest.mark.parametrize(("extra", "status"), [("", 1), ("onnx", 0)])
def test_what_csvi_needs_is_a_problem_and_what_an_extra_brings_is_not(
    extra, status, monkeypatch, look, nothing_imported, capsys
):
    monkeypatch.setenv("COLUMNS", "200")
    broken = doctor.Package("oldone", "1.0", "is 1.0, and must be >=2.0")
    monkeypatch.setattr(
        doctor, "needs", lambda name="": [Requirement("oldone")] if name == extra else [Requirement("rich")]
    )
    monkeypatch.setattr(
        doctor, "package_of", lambda need: broken if need.name == "oldone" else doctor.Package("rich", "1", None)
    )
    found = look(status=status)
    assert len(found["problems"]) == status
    assert main(["doctor"]) == status
    shown = " ".join(capsys.readouterr().out.split())
    assert "oldone is 1.0, and must be >=2.0" in shown if extra else "csvi needs oldone, which is 1.0" in shown
    assert ("pip install 'csvi[onnx]'" in shown) == (extra == "onnx")
    assert ("Nothing that csvi needs is broken or missing." in shown) == (status == 0)


def test_an_extra_that_is_missing_says_what_it_lacks_and_how_to_get_it():
    packages = [doctor.package_of(Requirement(name)) for name in ("no-such-one", "numpy", "no-such-two")]
    assert doctor._state(doctor.Extra("app", "", packages)) == "lacks no-such-one, no-such-two: pip install 'csvi[app]'"
    assert doctor._state(doctor.Extra("app", "", packages[1:2])) == "there"


def test_an_extra_names_what_its_extras_need(monkeypatch):
    lines = {
        "csvi": ["torch", "big[one]>=2", "gradio; extra == 'app'", "csvi[search]; extra == 'app'",
                 "pymilvus; extra == 'search'", "milvus-lite; sys_platform == 'none' and extra == 'search'"],
        "big": ["common", "small; extra == 'one'", "other; extra == 'two'"],
    }  # fmt: skip
    monkeypatch.setattr(metadata, "requires", lambda name: lines.get(name, []))
    assert [need.name for need in doctor.needs()] == ["torch", "big", "small"]
    assert [need.name for need in doctor.needs("app")] == ["gradio", "pymilvus"]


def test_a_package_is_imported_by_the_name_of_its_module():
    found = [doctor._module_of(name) for name in ("pillow", "pyyaml", "scikit-learn", "torch", "lightning-fabric")]
    assert found == ["PIL", "yaml", "sklearn", "torch", "lightning_fabric"]


def test_every_extra_for_users_is_known():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert declared.keys() - {"dev", "docs", "bake"} == doctor.EXTRAS.keys()


def test_csvi_that_is_no_package_is_a_problem(monkeypatch, look):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    (problem,) = look(status=1)["problems"]
    assert problem.startswith("csvi is not installed as a package")


def test_people_read_the_same(nothing_imported, capsys):
    assert main(["doctor"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (f"csvi {csvi.__version__}", f"torch {metadata.version('torch')}", choose_precision(), SPIN):
        assert text in shown
    for extra, purpose in doctor.EXTRAS.items():
        assert extra in shown
        assert purpose.split()[0] in shown
