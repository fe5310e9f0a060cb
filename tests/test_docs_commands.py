"""Every command of README.md, examples/README.md and docs/: parsed here, and run on small data by `make docs-check`.

A fence without a language, or of `sh` or `bash`, holds commands if a line of it begins with a program; then every line
must. Names in capitals (ROOT, RUN, MASKS) and folders such as `runs/sysu` are stand-ins that `prepared` makes.
"""

import argparse
import ast
import contextlib
import importlib.util
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from csvi.cli import COMMANDS, main
from csvi.commands.parser import Parser

ROOT = Path(__file__).parents[1]
PAGES = {
    file.relative_to(ROOT).as_posix(): file.read_text()
    for file in (ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OURS = ("csvi", "make", "python", "pytest")
FILES = ("mkdir", "cp")
"""Programs that are run as they are."""
OTHERS = {
    ".": "the shell", "export": "the shell", "cd": "the shell", "[": "the shell", "[[": "the shell",
    "git": "needs the repository's address", "pip": "installs packages", "npm": "downloads", "tar": "unpacks downloads",
    "hf": "needs an account of the Hub", "ray": "starts a cluster", "torchrun": "starts machines",
    "jupyter": "executes notebooks: tests/test_examples.py",
    "srun": "needs SLURM", "scontrol": "needs SLURM", "kubectl": "needs a cluster", "docker": "needs a daemon",
}  # fmt: skip
"""Programs of others, and why they are not run; a command of csvi behind them is parsed."""
NOT_RUN = {
    r"^csvi app\b": "serves until it is stopped: tests/search/app",
    r"^csvi demo\b": "takes minutes: tests/test_demo.py",
    r"^csvi reproduce\b": "trains tables of networks at full size: tests/analysis/test_reproduce_methods.py",
    r"--engine ray\b": "needs Ray, which tests have not: tests/test_ray.py",
    r"--(devices|nodes) \d": "needs accelerators: tests/train/test_processes.py",
    r"--push\b": "needs an account of the Hub: tests/export/test_folder.py",
    r"\bhttp://": "needs a Milvus server",
    r"\.tflite\b": "needs the file of others: tests/masks/test_external.py",
    r"^(python )?benchmarks/": "takes minutes: tests/test_benchmarks.py runs each in its quick form",
    r"^python -m pytest|^pytest\b": "is a test itself",
    r"^make\b": "takes minutes",
}
"""Commands that `make docs-check` leaves out, and why; they are parsed."""
ELSEWHERE = {"docs/extending.md", "docs/architecture.md"}
"""Pages whose worked examples tests/test_architecture.py runs."""
PROGRAMS = "|".join(map(re.escape, (*OURS, *FILES, *OTHERS)))
PROGRAM = re.compile(rf"^\s*(?:[A-Z_]+=(?:\"[^\"]*\"|\S+) |time )*(?:{PROGRAMS}|benchmarks/\S+)(?= )")
"""How a line begins that is a command."""


class Block(NamedTuple):
    """What a fence holds."""

    page: str
    line: int
    """Of the opening fence, from 1."""
    language: str
    text: str
    before: str
    """The line of text before it."""

    @property
    def module(self) -> str | None:
        """Name of the file that the text before says the block is, as `ours.py`."""
        named = re.search(r"`(\w+\.py)`", self.before) if self.language == "python" else None
        return named and named[1]

    @property
    def holds_commands(self) -> bool:
        lines = self.text.splitlines()
        return self.language in ("sh", "bash") or (not self.language and any(map(PROGRAM.match, lines)))


class Command(NamedTuple):
    where: str
    """Page and line."""
    words: list[str]


def blocks_of(page: str) -> list[Block]:
    blocks, before, opened = [], "", None
    lines = PAGES[page].splitlines()
    for number, line in enumerate(lines, 1):
        fence = re.match(r" *```(\w*)", line)
        if fence and opened is None:
            opened = number, fence[1]
        elif fence:
            blocks.append(Block(page, *opened, "\n".join(lines[opened[0] : number - 1]), before))
            opened = None
        elif opened is None and line.strip():
            before = line
    return blocks


def commands_of(block: Block) -> Iterator[Command]:
    """The simple commands of a block: lines that go on are joined, `&&` and comments are taken away."""
    pending = ""
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        pending += line
        if pending.endswith("\\"):
            pending = f"{pending[:-1]} "
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation goes on
            pending += "\n"
            continue
        pending = ""
        for of_separator, simple in itertools.groupby(words, "&&".__eq__):
            if not of_separator:
                yield Command(
                    f"{block.page}:{number}",
                    list(itertools.dropwhile(lambda word: word == "time" or re.match(r"[A-Z_]+=", word), simple)),
                )
    assert not pending, f"{block.page}:{block.line} ends within a quotation"


def says_nothing_of_csvi(block: Block) -> bool:
    """Whether a block that holds no commands has no line that looks like one: a program misspelt."""
    return bool(block.language) or not re.search(r"^[a-z]\w* .*--\w", block.text, re.MULTILINE)


STAND_INS = {
    r"RegDB|regdb\.yaml": {"MASKS": "RegDB/masks"},
    r"LLCM|llcm\.yaml": {"MASKS": "LLCM/masks"},
    r"--data\.layout regdb": {"ROOT": "RegDB", "DIR": "RegDB/masks"},
    r"mask_values nonzero": {"ROOT": "labelled"},
    r"--features feats": {"feats.npz": "theirs.npz"},
    r"corridor:|my_dataset:": {"ROOT": "corridor"},
    r"": {"SEED": "0", "NAME": "baseline", "COMMAND": "check", "RUN…": "RUN"},
}
"""Pattern of a command → word in it → what takes its place."""


def with_stand_ins(words: list[str]) -> list[str]:
    """Put what was prepared, or a value, in the place of words that a reader would replace."""
    text = shlex.join(words)
    instead = {}
    for pattern, of_pattern in STAND_INS.items():
        if re.search(pattern, text):
            instead = of_pattern | instead
    return [instead.get(word, word) for word in words]


# --- parsed ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A folder with the modules that pages show, and those that they only name; Python looks there."""
    folder = tmp_path_factory.mktemp("modules")
    write_modules(folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "RUN").mkdir()
    for file in ("my.yaml", "RUN/config.yaml"):
        (folder / file).write_text("method:\n  name: baseline\n")
    with looking_in(folder):
        yield folder


def write_modules(folder: Path) -> None:
    for block in itertools.chain.from_iterable(map(blocks_of, PAGES)):
        if block.module:
            (folder / block.module).write_text(block.text)
    (folder / "their_module.py").write_text(
        "from csvi.methods.baseline import Baseline\n\nclass TheirMethod(Baseline):\n    title = 'Theirs'\n"
    )
    (folder / "my_dataset.py").write_text("from corridor import Corridor as MyDataset")


@contextlib.contextmanager
def looking_in(folder: Path) -> Iterator[None]:
    """Work in a folder, and import from it; its modules are forgotten afterwards."""
    with contextlib.chdir(folder):
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            for name in [file.stem for file in folder.glob("*.py")]:
                sys.modules.pop(name, None)


class Parsed(Exception):
    """Arguments were good."""


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Parse a command, and run nothing; returns what is wrong with it."""
    program, *arguments = words
    if program in OTHERS:
        return parse(arguments[arguments.index("csvi") :], monkeypatch) if "csvi" in arguments else None
    if program in FILES:
        return None
    if program.startswith("benchmarks/"):
        return None if (ROOT / program).is_file() else f"no {program}"
    if program == "csvi":
        return _parse_ours(arguments, monkeypatch)
    if program == "make":
        unknown = [word for word in arguments if "=" not in word and word not in TARGETS]
        return f"the Makefile has no target {unknown[0]}" if unknown else None
    if program == "pytest":
        files = [word.partition("::")[0] for word in arguments if word.startswith("tests/")]
        return next((f"no {file}" for file in files if not (ROOT / file).exists()), None)
    if program == "python" and arguments[:1] == ["-c"]:
        compile(arguments[1], "<docs>", "exec")
        return parse(["csvi", *arguments[2:]], monkeypatch) if arguments[2:] else None
    if program == "python" and arguments[:1] == ["-m"]:
        return parse(arguments[1:], monkeypatch)
    if program == "python" and arguments[0].startswith("benchmarks/"):
        return _parse_benchmark(arguments, monkeypatch)
    return f"{program} is no program that tests/test_docs_commands.py knows"


def _parse_ours(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    if not set(arguments) - {"--help", "--version"}:
        return None
    if arguments[0] not in COMMANDS:
        return f"csvi has no command {arguments[0]}"
    with monkeypatch.context() as patch:
        patch.setattr(f"csvi.commands.{arguments[0]}.run", lambda settings: None)
        return _failure(main, arguments)


def _parse_benchmark(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    file = ROOT / arguments[0]
    if not file.is_file():
        return f"no {arguments[0]}"
    with monkeypatch.context() as patch:
        patch.syspath_prepend(file.parent)
        right = argparse.ArgumentParser.parse_args

        def parse_args(parser, given=None, namespace=None):
            right(parser, given, namespace)
            raise Parsed

        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        if file.stem not in BENCHMARKS:
            spec = importlib.util.spec_from_file_location(file.stem, file)
            BENCHMARKS[file.stem] = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, file.stem, BENCHMARKS[file.stem])  # where dataclasses look for it
            spec.loader.exec_module(BENCHMARKS[file.stem])
        script = BENCHMARKS[file.stem]
        takes = script.main if hasattr(script, "main") else script.make_parser().parse_args
        return _failure(takes, arguments[1:])


BENCHMARKS = {}
"""Name → module of those that were imported."""


def _failure(function, arguments: list[str]) -> str | None:
    """Call a program's entry point; returns what is wrong if it does not end well."""
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115
    with said, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            status = function(arguments)
        except Parsed:
            status = 0
        except SystemExit as end:
            status = end.code
        except Exception as error:
            status = f"{type(error).__name__}: {error}"
        said.seek(0)
        return f"{status}: {said.read().strip()[-500:]}" if status else None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one(page, modules, monkeypatch):
    wrong = []
    for block in blocks_of(page):
        if not block.holds_commands:
            assert says_nothing_of_csvi(block), f"{page}:{block.line}: commands of a program that no test knows"
            continue
        for command in commands_of(block):
            if command.words and (what := parse(with_stand_ins(command.words), monkeypatch)):
                wrong.append(f"{command.where}: {shlex.join(command.words)}: {what}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_options_and_files_of_commands_within_a_sentence_exist(page, modules, monkeypatch):
    wrong = []
    text = re.sub(r"^ *```.*?^ *```", lambda fence: "\n" * fence[0].count("\n"), PAGES[page], flags=re.M | re.S)
    for found in re.finditer(rf"`((?:{'|'.join(OURS)}) [^`]+)`", text):
        words = shlex.split(found[1])
        if words[:2] == ["python", "-m"]:
            words = words[2:]
        if words[:2] == ["csvi", "..."] or words[:2] == ["python", "-c"]:
            continue
        words = with_stand_ins(words)
        if what := _unknown_options(words[1:]) if words[0] == "csvi" else parse(words, monkeypatch):
            wrong.append(f"{page}:{text.count(chr(10), 0, found.start()) + 1}: {found[1]}: {what}")
    assert wrong == []


def _unknown_options(arguments: list[str]) -> str | None:
    """Name what a command that a sentence mentions, most often without all its arguments, does not take."""
    if not set(arguments) - {"--help", "--version"}:
        return None
    if arguments[0] not in COMMANDS:
        return f"csvi has no command {arguments[0]}"
    if not any(word.startswith("--") for word in arguments):
        return None
    parser = Parser(prog="csvi")
    parser.arguments = arguments[1:]
    importlib.import_module(f"csvi.commands.{arguments[0]}").add_arguments(parser)
    given = [word.partition("=")[0] for word in parser.arguments if word.startswith("--")]
    unknown = [word for word in given if word not in parser._option_string_actions]
    return f"no option {unknown[0]}" if unknown else None


def test_a_renamed_option_or_command_or_file_is_noticed(modules, monkeypatch):
    for text in (
        "csvi train --data.rot SYSU-MM01", "csvi trian", "csvi train --config configs/sisu.yaml", "make demos",
        "python benchmarks/evaluation.py --dimension_s 3", "python benchmarks/evaluations.py", "cvsi train",
        "torchrun --nnodes 4 -m -- csvi train --confg my.yaml", "csvi figure leaks RUN", "pytest tests/test_none.py",
        "csvi train --method none:None",
    ):  # fmt: skip
        assert parse(shlex.split(text), monkeypatch), text
    assert _unknown_options(["check", "--decod"])
    assert not says_nothing_of_csvi(Block("page", 1, "", "cvsi train --data.root mine", ""))


def test_every_import_of_a_python_block_is_there(modules):
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == "python":
                for node in ast.walk(ast.parse(block.text)):
                    if isinstance(node, ast.ImportFrom):
                        module = importlib.import_module(node.module)
                        missing = [name.name for name in node.names if not hasattr(module, name.name)]
                        assert not missing, f"{page}:{block.line}: {node.module} has no {missing[0]}"


# --- run -------------------------------------------------------------------------------------------------------------

SMALL = shlex.split(
    "--data.height 96 --data.width 48 --data.identities 2 --data.images 2 --data.workers 0 --data.cache cache "
    "--train.epochs 1 --train.warmup 0 --train.warmup_epochs 0 --method.backbone mobilenet_v2 --precision 32-true"
)
"""What is added to every training."""
TINY = shlex.split("--preset tiny --height 48 --width 24 --processes 1")
"""What is added to every rendering."""
WRITES = {"synth": None, "train": "--run", "embed": "--out", "masks": "--out"}
"""Command → the option that names what it writes, and refuses to write over; None for its first argument."""
DATASETS = {"SYSU-MM01": "sysu", "RegDB": "regdb", "LLCM": "llcm", "mine": "folder"}
RUNS = {
    "sysu": "--method coseg --data.root SYSU-MM01",
    "baseline": "--method baseline --data.root SYSU-MM01",
    "regdb-1": "--method baseline --data.root RegDB --data.layout regdb",
    "regdb-2": "--method baseline --data.root RegDB --data.layout regdb --data.fold 2",
    "llcm": "--method baseline --data.root LLCM --data.layout llcm",
    "mine": "--method baseline --data.root mine --data.layout folder",
}
COPIES = {
    "runs/sysu": ("runs/coseg", "runs/coseg-0", "runs/coseg-1", "runs/demo", "runs/big", "demo/run", "RUN"),
    "runs/baseline": ("runs/baseline-0", "runs/baseline-1"),
    "SYSU-MM01": ("ROOT", "labelled", "demo/benchmark"),
    "SYSU-MM01/masks": ("MASKS", "THEIRS"),
    "RegDB/masks": ("REGDB_MASKS",),
    "LLCM/masks": ("LLCM_MASKS",),
    "mine": ("CROPS", "NEW"),
    "crops": ("CROPS/MORE",),
}
"""What was prepared → the names under which pages know the like."""
GIVEN = {
    "README.md": """
import numpy as np, torch
rng = np.random.default_rng(0)
images, modality = torch.zeros(2, 3, 96, 48), torch.tensor([0, 1])
distance, query, gallery = rng.random((4, 8)), rng.random((4, 16)), rng.random((8, 16))
query_identity, gallery_identity = np.arange(4), np.arange(8) % 4
query_camera, gallery_camera = np.full(4, 3), np.full(8, 1)
""",
    "docs/export.md": "import csvi",
}
"""Page → the names that its Python blocks take for granted."""


def copied(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with a stand-in for every dataset, run and image that a page names."""
    folder = tmp_path_factory.mktemp("prepared")
    with contextlib.chdir(folder):
        for name, layout in DATASETS.items():
            run_ours(["synth", name, "--layout", layout])
        for name, options in RUNS.items():
            run_ours(["train", *options.split(), "--run", f"runs/{name}"])
            run_ours(["evaluate", f"runs/{name}"])
            Path(f"runs/{name}/last.ckpt").unlink()
        crops = [file for camera in (1, 3, 6) for file in sorted(Path("SYSU-MM01", f"cam{camera}").rglob("*.jpg"))[:4]]
        for file in crops:
            copied(file, "crops" / file.relative_to("SYSU-MM01"))
        Path("crops/list.csv").write_text(
            "\n".join(["path", *(file.relative_to("SYSU-MM01").as_posix() for file in crops)])
        )
        for source, copies in COPIES.items():
            for copy in copies:
                shutil.copytree(source, copy)
                if copy.endswith(("-0", "-1")):  # a mean counts a run once, which an evaluation names
                    run_ours(["evaluate", copy])
        for file in Path("labelled/masks").rglob("*.png"):  # 1 for the person, in place of 255 with soft edges
            Image.open(file).point(lambda grey: grey > 127).save(file)
        table = Path("CROPS/images.csv")
        table.write_text(table.read_text().replace("2024-05-06", "2024-05-01"))
        for name in ("day", "probe1", "cam1/0001", "cam2/0007"):
            copied(crops[0], Path(f"{name}.jpg"))
        for name in ("cam1/0177/0003", "cam1/0195/0003", "cam3/0177/0001"):  # people of the demo
            copied(crops[0], Path(f"demo/benchmark/{name}.jpg"))
        for name in ("night", "probe", "probe2"):
            copied(crops[-1], Path(f"{name}.jpg"))
        for file in Path("SYSU-MM01").glob("cam[13]/*/*.jpg"):
            camera = file.parts[1].removeprefix("cam")
            copied(file, Path("corridor", file.parent.name, f"{'d' if camera == '1' else 'n'}{camera}_{file.name}"))
        shutil.copy("runs/baseline/config.yaml", "my.yaml")
        for name in ("feats.npz", "theirs.npz"):
            run_ours(["embed", "SYSU-MM01", "--run", "runs/sysu", "--out", name])
        run_ours(["index", "add", "demo/benchmark", "--run", "demo/run", "--gallery", "demo/gallery.db"])
        run_ours(["export", "runs/sysu", "--format", "onnx", "--out", "model.onnx"])
        Path("configs").symlink_to(ROOT / "configs")
        write_modules(folder)
    return folder


def run_ours(arguments: list[str]) -> None:
    assert (what := run(["csvi", *arguments])) is None, f"{arguments}: {what}"


def run(words: list[str]) -> str | None:
    """Run a command on what was prepared; returns what is wrong if it does not end well."""
    if is_not_run(words):
        return None
    if words[:2] == ["python", "-m"]:
        words = words[2:]
    arguments = []
    for word in words[1:]:
        arguments += sorted(map(str, Path().glob(word))) if word.startswith("runs/") and "*" in word else [word]
    command, *options = arguments
    if words[0] == "mkdir":
        shutil.rmtree(command, ignore_errors=True)
    if words[0] != "csvi":
        program = sys.executable if words[0] == "python" else words[0]
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        return done.stderr[-500:] if done.returncode else None
    if command in ("train", "ablate") and "--help" not in options:
        arguments += [*SMALL, *([] if "--method.weights" in options else ["--method.weights", "none"])]
        arguments += ["--seeds", "1"] if command == "ablate" else []
    if command == "train" and not {"--run", "--help"} & {*options}:
        arguments += ["--resume", "auto"]  # runs of one name, which nobody chose, are of different examples
    if command == "synth":
        arguments += TINY
    if command in WRITES:  # to one name more than once on a page, as alternatives
        for file in _written(options, WRITES[command]):
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
    return _failure(main, arguments)


def _written(options: list[str], option: str | None) -> Iterator[Path]:
    """Name the folder or file that a command writes."""
    following = options if option is None else options[options.index(option) + 1 :] if option in options else []
    return (Path(word) for word in following[:1] if not word.startswith("--"))


def is_not_run(words: list[str]) -> bool:
    return words[0] in OTHERS or any(re.search(pattern, shlex.join(words)) for pattern in NOT_RUN)


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE and blocks_of(page)])
def test_every_command_of_a_page_runs(page, prepared, monkeypatch):
    from csvi.train.cost import Cost

    monkeypatch.setattr("csvi.analysis.ablate.training_cost", lambda *_: Cost(1, 1, 1.0, 1, "none"))
    wrong, names = [], {"__name__": "__main__"}
    exec(GIVEN.get(page, ""), names)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place, "work")
        shutil.copytree(prepared, work, symlinks=True)
        with looking_in(work):
            for block in blocks_of(page):
                for where, what in of_block(block, names):
                    wrong.append(f"{where}: {what}")
                    print(wrong[-1], file=sys.__stderr__)
    assert wrong == []


def of_block(block: Block, names: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Run what a block holds; yields what fails, and where."""
    if block.language == "python" and not block.module and 'OWNER/NAME")' not in block.text:
        text = block.text.replace('preset="demo"', 'preset="tiny"')
        if what := _failure(lambda code: exec(code, names), text):
            yield f"{block.page}:{block.line}", what
    elif block.holds_commands:
        for command in commands_of(block):
            words = with_stand_ins(command.words)
            if words and (what := run(words)):
                yield command.where, f"{shlex.join(words)}: {what}"
