"""The command line: one thin function a command. Heavy imports wait until a command runs."""

import contextlib
import dataclasses
import io
import json
import logging
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings

from csvi import __version__
from csvi.config import Config, DataConfig, ModelConfig, SynthConfig, load_config, read_settings, shipped_config
from csvi.errors import CsviError, StoppedError
from csvi.paths import expanded
from csvi.shell import as_argument

if TYPE_CHECKING:
    from csvi.evaluate.runs import EvaluationOptions

Settings = TypeVar("Settings")
Command = Callable[[Namespace], int | None]
LAYOUTS = get_args(get_type_hints(DataConfig)["dataset"])
AUXILIARIES = get_args(get_type_hints(ModelConfig)["auxiliary"])
FIGURES = ("cosegmentation", "tsne", "heatmaps", "gradients", "leak")


def synth(settings: Namespace) -> None:
    from csvi.synth import write_benchmark, write_sheet

    config = _settings(SynthConfig, settings)
    if settings.sheet:
        write_sheet(expanded(settings.sheet), config)
        print(f"contact sheet: {settings.sheet}")
    if settings.out:
        write_benchmark(expanded(settings.out), config)
        root = as_argument(settings.out)
        following = ["csvi", "train", "--config", as_argument(shipped_config("demo")), "--data.root", root]
        following += ["--data.dataset", config.layout] if config.layout != "sysu" else []
        following += ["--data.identities", "4"] if config.preset == "tiny" else []
        print(f"benchmark: {settings.out}\nnext: {' '.join(following)}")
    if not settings.sheet and not settings.out:
        raise CsviError("nothing to write: give a folder for the benchmark, --sheet FILE, or both")


def train(settings: Namespace) -> None:
    from csvi.train.time_limit import seconds

    until = time.monotonic() + (math.inf if settings.max_time is None else seconds(settings.max_time))
    from csvi.train.loop import train

    config = _settings(Config, settings)
    dataset = f"regdb-{config.data.trial}" if config.data.dataset == "regdb" else config.data.dataset
    run = expanded(settings.run or f"runs/{dataset}-{config.model.backbone}-{config.model.auxiliary}-{config.seed}")
    train(config, run, settings.resume, until)
    print(f"run: {run}\nnext: csvi evaluate {as_argument(run)}")


def check(settings: Namespace) -> int:
    from csvi.analysis.dataset_table import print_check
    from csvi.data.check import check_dataset

    masks = settings.data.masks and Path(settings.data.masks)
    found = check_dataset(expanded(settings.root), settings.data.dataset, masks, settings.decode)
    if settings.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print_check(found)
    return 1 if found.problems else 0


def evaluate(settings: Namespace) -> None:
    from csvi.evaluation import evaluate_all

    evaluate_all(settings.runs, settings.features, _evaluation_options(settings), settings.json)


def compare(settings: Namespace) -> None:
    from csvi.analysis.comparison_table import print_comparison
    from csvi.evaluate.compare import compare_groups, compare_runs, load_evaluation

    evaluations = [load_evaluation(Path(run)) for run in settings.runs]
    if settings.against:
        against = [load_evaluation(Path(run)) for run in settings.against]
        names = [f"{len(runs)} × {runs[0]}" for runs in (settings.against, settings.runs)]
        print_comparison(compare_groups([against, evaluations], names, settings.protocol))
    else:
        print_comparison(compare_runs(evaluations, settings.runs, settings.protocol))


def report(settings: Namespace) -> None:
    from csvi.analysis.make_figure import make_figure
    from csvi.analysis.report import write_report
    from csvi.evaluate.runs import evaluate_run

    outcome = evaluate_run(settings.run, _evaluation_options(settings))
    for name in settings.figures:
        make_figure(name, [Path(settings.run)], Path(settings.run) / "figures", settings.data.root)
    print(f"report: {write_report(Path(settings.run), outcome)}")


def demo(settings: Namespace) -> None:
    from csvi.demo import run_demo

    report = run_demo(expanded(settings.out), settings.seed)
    print(f"report: {report}\nnext: open it in a browser, or train at full size: csvi train --help")


def figure(settings: Namespace) -> None:
    from csvi.analysis.make_figure import make_figure

    runs = [Path(run) for run in settings.runs]
    out = expanded(settings.out) if settings.out else runs[0] / "figures"
    for file in make_figure(settings.name, runs, out, settings.data.root, settings.seed):
        print(f"written: {file}")


def ablate(settings: Namespace) -> None:
    from csvi.ablate import ablate

    config = _settings(Config, settings)
    file = ablate(config, settings.variants, settings.seeds, expanded(settings.out), settings.grid)
    print(f"{file.read_text()}\nwritten: {file}")


def reproduce(settings: Namespace) -> None:
    from csvi.reproduce import reproduce

    config = load_config(expanded(settings.settings) if settings.settings else shipped_config(settings.dataset))
    config.data.root, config.data.masks = settings.data, settings.masks or config.data.masks
    file = reproduce(settings.dataset, config, expanded(settings.out), settings.seeds, settings.anyway)
    print(f"{file.read_text()}\nwritten: {file}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    0; 1 for a CsviError or what a check finds; 2 for wrong arguments; 75 for what stopped, or was ended by SIGTERM, and
    can go on; 130 for what was interrupted.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("csvi").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what its encoding lacks is shown as a question mark
    name = "csvi"
    try:
        parser, commands = _parser()
        with _refusing(parser):
            settings = parser.parse_args(arguments)
            name = f"csvi {settings.command}"
            values = parser.instantiate(settings)[settings.command]
        return commands[settings.command](values) or 0
    except (CsviError, OSError) as error:  # an OSError is a full disk or a folder that cannot be written
        _say(f"{name}: {error}")
        if isinstance(error, StoppedError):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is saved: nothing is to be gained from a second one
            return 75
        return 1
    except (MemoryError, RuntimeError) as error:  # PyTorch's are RuntimeErrors, and known by their words alone
        if not (isinstance(error, MemoryError) or re.search(r"(out of|not enough|allocate) memory", str(error))):
            raise
        less = "smaller batches (--data.identities, --data.images) or images (--data.height, --data.width) take less"
        _say(f"{name}: not enough memory, {less}: {' '.join(str(error).split())[:300]}")
        return 1
    except TerminatedError:
        _say(f"{name}: ended by SIGTERM, the same command goes on or begins anew")
        return 75
    except KeyboardInterrupt:
        _say(f"{name}: interrupted")
        return 130
    finally:
        _let_go_of_broken_pipes()


class TerminatedError(KeyboardInterrupt):
    """By SIGTERM, as clusters do; otherwise as Ctrl-C: what was started is ended too."""


def _terminate(number: int, frame: object) -> None:
    raise TerminatedError


def _let_go_of_broken_pipes() -> None:
    """Python would try once more to write to them as it ends, and end with status 120."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # stderr may be a pipe that nobody reads any more
        print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _refusing(parser: ArgumentParser) -> Iterator[None]:
    """Ends as wrong arguments do, in whatever way jsonargparse fails on them."""
    try:
        yield
    except CsviError:
        raise
    except Exception as error:
        parser.error(f"cannot make out the arguments: {error}")


class _ConfigFile(ActionConfigFile):
    def __call__(self, parser: Any, settings: Any, file: Any, option: str | None = None) -> None:
        """Says what is wrong with the file, of which jsonargparse does not even give the name."""
        if read_settings(Path(file)):
            super().__call__(parser, settings, file, option)


class _Parser(ArgumentParser):
    def add_argument(self, *names: Any, **options: Any) -> Any:
        """An option that says nothing else is a text, in a --config as well."""
        if not options.keys() & {"action", "choices", "type"}:
            options["type"] = str
        return super().add_argument(*names, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One sentence, not pages of usage."""
        command = self.prog.replace("[options] ", "")
        print(f"{command}: {' '.join(message.split())[:500]} (see {command} --help)", file=sys.stderr)
        sys.exit(2)


def _parser() -> tuple[ArgumentParser, dict[str, Command]]:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = _Parser(prog="csvi", description="Visible-infrared person re-identification with co-segmentation.")
    parser.add_argument("--version", action="version", version=f"csvi {__version__}")
    subcommands = parser.add_subcommands(dest="command")
    commands: dict[str, Command] = {}

    def command(function: Command, summary: str) -> ArgumentParser:
        commands[function.__name__] = function
        child = _Parser(prog=f"csvi {function.__name__}", description=summary)
        child.add_argument(
            "--config", action=_ConfigFile, help="YAML file of settings; give it first, options after it override it"
        )
        subcommands.add_subcommand(function.__name__, child, help=summary)
        return child

    child = command(synth, "Write the synthetic benchmark in a dataset's own layout.")
    child.add_argument("out", nargs="?", help="folder to write")
    child.add_argument("--sheet", help="PNG file of a contact sheet: visible, infrared and mask of several people")
    child.add_class_arguments(SynthConfig)

    child = command(train, "Train a model; leaves a run folder.")
    child.add_class_arguments(Config)
    child.add_argument("--run", help="folder of the run; by default runs/DATASET-BACKBONE-AUXILIARY-SEED")
    child.add_argument("--resume", help="auto: go on where RUN stopped; or the path of a checkpoint")
    child.add_argument(
        "--max-time", help="stop before so long (90s, 30m, 2h, 1h30m), all of it saved, with exit status 75"
    )

    child = command(check, "Look through a dataset: what it holds, and what is broken, missing or double.")
    child.add_argument("root", help="folder of the dataset")
    child.add_argument("--data.dataset", choices=LAYOUTS, help="its layout; by default the one it looks like")
    child.add_argument("--data.masks", help="folder of person masks; by default ROOT/masks")
    child.add_argument("--decode", action="store_true", help="decode every image; by default headers are read")
    child.add_argument("--json", action="store_true", help="print everything as JSON")

    child = command(evaluate, "Evaluate runs on the test split under the dataset's protocols.")
    child.add_argument("runs", nargs="*", help="run folders; of the same settings, as RegDB's ten, their mean is given")
    child.add_argument("--features", help="in place of runs, .npz of embedding (n, d) and path (n,)")
    child.add_argument("--json", action="store_true", help="print everything as JSON")
    _add_test_arguments(child)

    child = command(compare, "Evaluated runs side by side, and their paired differences to the first.")
    child.add_argument("runs", nargs="+", help="run folders, or evaluation files of them")
    child.add_argument("--against", nargs="+", help="compare means over runs (seeds, splits): of these to that of RUNS")
    child.add_argument("--protocol", help="by name; by default the first of the dataset's")

    child = command(report, "Evaluate a run and write RUN/report.html, with the figures that RUN/figures holds.")
    child.add_argument("run", help="run folder")
    child.add_argument("--figures", nargs="*", default=[], choices=FIGURES, help="draw these before")
    _add_test_arguments(child)

    child = command(figure, "The paper's Figures 4, 5, 6, Eq. 20-24 measured, and how much identity leaks through w.")
    child.add_argument(
        "name", choices=FIGURES, help="cosegmentation: Figure 4; tsne: 5; heatmaps: 6; gradients: Eq. 20-24"
    )
    child.add_argument("runs", nargs="+", help="run folders, side by side")
    child.add_argument("--out", help="folder to write; by default FIRST_RUN/figures")
    child.add_argument("--data.root", help="dataset; by default the one that the run was trained on")
    child.add_argument("--seed", type=int, default=0, help="of every random draw")

    child = command(ablate, "Train variants with several seeds, compare them: Tables 3 and 4. Stops and goes on.")
    child.add_argument(
        "--variants",
        nargs="+",
        default=list(AUXILIARIES),
        help="AUXILIARY[:SETTING=VALUE,...]; the first is what others are compared with",
    )
    child.add_argument("--seeds", type=int, default=3, help="runs of each variant")
    child.add_argument(
        "--grid", type=dict[str, list[Any]], default={}, help="setting -> values to choose from on the val identities"
    )
    child.add_argument("--out", default="runs/ablation", help="folder to write")
    child.add_class_arguments(Config)

    child = command(reproduce, "The paper's Tables 1 to 3 on its datasets, beside its figures. Stops and goes on.")
    child.add_argument("dataset", choices=["sysu", "regdb"])
    child.add_argument("--data", required=True, help="folder of the dataset")
    child.add_argument("--masks", help="folder of person masks; by default DATA/masks")
    child.add_argument("--settings", help="YAML file of training settings; by default the paper's")
    child.add_argument("--seeds", type=int, default=1, help="runs of each variant, or split")
    child.add_argument("--anyway", action="store_true", help="go on although csvi check finds problems")
    child.add_argument("--out", default="runs/reproduction", help="folder to write")

    child = command(demo, "The main job at a small size: synthetic benchmark, training, evaluation, report.")
    child.add_argument("--out", default="demo", help="folder to write")
    child.add_argument("--seed", type=int, default=0, help="of the benchmark and of training")
    return parser, commands


def _add_test_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--data.root", help="dataset; by default the one that the run was trained on")
    parser.add_argument("--data.dataset", choices=LAYOUTS, help="its layout; by default the one it looks like")
    parser.add_argument("--data.trial", type=int, help="which split of it (RegDB); by default the run's")
    parser.add_argument("--data.masks", help="folder of person masks; by default ROOT/masks")
    parser.add_argument("--data.cache", help="folder of decoded images; by default the run's")
    parser.add_argument("--gallery", choices=["seeded", "official"], help="how SYSU-MM01's galleries are drawn; seeded")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image; the protocols do not")
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking; the protocols do not")
    parser.add_argument("--expand", type=int, default=0, help="query expansion by so many neighbours; ditto")


def _evaluation_options(settings: Namespace) -> "EvaluationOptions":
    from csvi.evaluate.refine import Refinement
    from csvi.evaluate.runs import EvaluationOptions

    return EvaluationOptions(
        **vars(settings.data),
        gallery=settings.gallery,
        flip=settings.flip,
        refinement=Refinement(rerank=settings.rerank, expand=settings.expand),
    )


def _settings(kind: type[Settings], settings: Namespace) -> Settings:
    """The part of a command's settings that a dataclass holds."""
    return kind(**{field.name: settings[field.name] for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
