"""Builds wheel and sdist twice, and uses the wheel where nothing else of csvi is: make wheel-check.

python .ci/wheel_check.py [--reuse-torch]

The second build is of the unpacked sdist, in another folder with other times of change; both must be equal byte for
byte. The wheel is installed with pip and what it needs from the package index, which takes some GB; then a user's
commands run, without the repository. With --reuse-torch PyTorch alone is that of the Python that runs this.
"""

import argparse
import hashlib
import json
import os
import shlex
import site
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = "--method.weights none --data.height 48 --data.width 24 --data.images 2 --data.workers 0 --train.epochs 1"
TORCH = ("torch", "torchvision", "triton", "nvidia", "cuda")
"""PyTorch, and what the names of the packages begin with that are only its own."""


def shell(command: str, **options: object) -> str:
    """Run a command and return what it prints; ends this program with the command's output if it fails."""
    print("$", command, flush=True)
    done = subprocess.run(shlex.split(command), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with status {done.returncode}: {command}")
    return done.stdout


def check(holds: bool, what: str, found: object = "") -> None:
    """Say that something holds, or end this program with what was found instead."""
    if not holds:
        sys.exit(f"not so: {what} {found}")
    print("ok:", what, flush=True)


def make_environment(folder: Path) -> Path:
    """Make a virtual environment with nothing in it; returns its Python."""
    shell(f"{sys.executable} -m venv {folder}")
    return folder / "bin" / "python"


def build(python: Path, source: Path, out: Path) -> dict[str, Path]:
    """Build the sdist, and of it the wheel: suffix → file."""
    shell(f"{python} -m build --outdir {out} {source}")
    return {file.suffix: file for file in out.iterdir()}


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_content(wheel: Path, sdist: Path) -> None:
    """The wheel holds the package with its settings, and nothing else; the sdist no file that is made by a program."""
    package = {
        f"csvi/{p.relative_to(ROOT / 'src' / 'csvi')}" for p in (ROOT / "src" / "csvi").rglob("*") if p.is_file()
    }
    configs = {f"csvi/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*") if p.is_file()}
    expected = {name for name in package | configs if "__pycache__" not in name}
    names = zipfile.ZipFile(wheel).namelist()
    found = {name for name in names if ".dist-info/" not in name}
    check(found == expected, "the wheel holds the package and configs/ alone", sorted(found ^ expected))
    licences = {name.rpartition("/")[2] for name in names if "/licenses/" in name}
    check(licences == {"LICENSE", "NOTICE"}, "the wheel holds LICENSE and NOTICE")
    with tarfile.open(sdist) as archive:
        files = [Path(name).relative_to(Path(name).parts[0]) for name in archive.getnames()]
    made = [file for file in files if "__pycache__" in file.parts or file.parts[0] in (".venv", "runs", "demo", "data")]
    check(not made, "the sdist holds nothing that a program made", made)
    for file in (wheel, sdist):
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, sha256 {digest(file)}")


def link_torch(python: Path) -> None:
    """Put PyTorch of this Python, and the packages that are only its own, into an environment, as links."""
    (target,) = (python.parents[1] / "lib").glob("python*/site-packages")
    for distribution in metadata.distributions(path=site.getsitepackages()):
        if distribution.name.startswith(TORCH):
            files = distribution.files or []
            for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
                if not (target / top).exists():
                    (target / top).symlink_to(distribution.locate_file(top))


def use(python: Path, folder: Path) -> None:
    """Run a user's commands in an empty folder, with an empty home folder."""
    (folder / "home").mkdir(parents=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "OMP_NUM_THREADS": "2"}

    def csvi(arguments: str) -> str:
        return shell(f"{python.parent / 'csvi'} {arguments}", cwd=folder, env=environment)

    version = csvi("--version").strip()
    doctor = json.loads(csvi("doctor --json"))
    check(version == f"csvi {doctor['csvi']}", f"it is {version}")
    check(Path(doctor["folder"]).is_relative_to(python.parents[1]), f"csvi lies in {doctor['folder']}")
    missing = [extra["name"] for extra in doctor["extras"] if None in [p["version"] for p in extra["packages"]]]
    check("app" in missing and "export" in missing, f"not installed with it: {', '.join(missing)}")
    print(csvi("doctor"))
    check("coseg" in csvi("methods"), "csvi methods lists the methods")
    shown = csvi("synth data --preset tiny --height 48 --width 24 --processes 1")
    following = shown.rpartition("next: csvi ")[2].strip()
    check("train --config demo " in following, "csvi synth names settings that the wheel brings")
    csvi(f"{following} {SMALL} --run run")
    check("all single-shot" in csvi("evaluate run"), "csvi evaluate prints the results of a run")
    csvi("report run")
    check("Synthetic data." in (folder / "run" / "report.html").read_text(), "the report is written")
    check((folder / "home" / ".cache" / "csvi").is_dir(), "the cache lies in the home folder")


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reuse-torch", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as name:
        scratch = Path(name)
        builder = make_environment(scratch / "builder")
        shell(f"{builder} -m pip install --quiet build")
        first = build(builder, ROOT, scratch / "first")
        with tarfile.open(first[".gz"]) as archive:
            archive.extractall(scratch / "unpacked", filter="data")
        (unpacked,) = (scratch / "unpacked").iterdir()
        second = build(builder, unpacked, scratch / "second")
        for suffix in (".whl", ".gz"):
            check(digest(first[suffix]) == digest(second[suffix]), f"{first[suffix].name} is equal in both builds")
        check_content(first[".whl"], first[".gz"])
        python = make_environment(scratch / "clean")
        if options.reuse_torch:
            link_torch(python)
        shell(f"{python} -m pip install --quiet --no-compile {first['.whl']}")
        use(python, scratch / "use")
    print("the wheel works")


if __name__ == "__main__":
    main()
