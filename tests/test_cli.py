"""The commands as a user types them."""

import contextlib
import functools
import io
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

import csvi
from csvi.cli import COMMANDS, main
from csvi.commands.train import name_of
from csvi.config import Config, DataConfig, flatten, shipped_config
from csvi.data import Layout, read_benchmark
from csvi.errors import StoppedError, TerminatedError
from csvi.methods import METHODS, find_method
from csvi.plain_table import plain_console
from csvi.runs.settings import save_config
from csvi.signals import ENDING

SLOWEST = 0.5
"""Seconds of a processor that help may take."""


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_answers_at_once_and_without_torch(arguments):
    code = f"""
import sys
from csvi.cli import main
try:
    main({arguments})
except SystemExit as exit:
    sys.exit(bool(exit.code) or bool({{"torch", "numba", "matplotlib"}} & sys.modules.keys()))
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # not by the clock: other work may share the machine
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SLOWEST


@pytest.fixture
def pressed_tab(monkeypatch):
    """What is offered for a command line when somebody presses TAB at its end."""
    argcomplete = pytest.importorskip("argcomplete", reason="pip install 'csvi[completion]'")

    def pressed_tab(line):
        answers = io.StringIO()
        monkeypatch.setattr(argcomplete.CompletionFinder, "_init_debug_stream", lambda _: None)  # a file of pytest's
        finder = argcomplete.CompletionFinder()
        complete = functools.partial(finder, exit_method=sys.exit, output_stream=answers)
        monkeypatch.setattr(argcomplete, "autocomplete", complete)
        asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
        for name, value in asked.items():
            monkeypatch.setenv(name, value)
        with contextlib.suppress(SystemExit):  # an error ends csvi otherwise
            run()
        return set(answers.getvalue().split("\v"))

    return pressed_tab


@pytest.mark.parametrize(
    ("line", "expected", "absent"),
    [
        ("csvi ", {*COMMANDS, "--version"}, set()),
        ("csvi tr", {"train "}, set()),
        ("csvi bogus --", set(), {"--data.root"}),
        ("csvi figure ", {"cosegmentation", "tsne"}, {"train"}),
        ("csvi train --data.ro", {"--data.root "}, set()),
        ("csvi train --data.on_error ", {"stop", "skip"}, set()),
        ("csvi train --data.on_error=", {"--data.on_error=stop", "--data.on_error=skip"}, set()),
        ("csvi evaluate run --galleries ", {"seeded", "official"}, set()),
        ("csvi index add --", {"--index_type", "--gallery"}, {"--all"}),  # options of a word of the command
        ("csvi index remove --", {"--all", "--gallery"}, {"--index_type"}),
        ("csvi train --method agw --method.tri", {"--method.triplet_weight "}, {"--method.segmentation_weight"}),
        ("csvi train --method=decode --method.seg", {"--method.segmentation_weight "}, {"--method.triplet_weight"}),
        ("csvi report sett", {"settings.yaml "}, set()),
        ("csvi train --config sett", {"settings.yaml "}, set()),
        ("csvi train --data.masks=sett", {"--data.masks=settings.yaml "}, set()),
        ("csvi train --config missing.yaml --", set(), {"--data.root"}),
        ("csvi train --method ", {*METHODS}, {"settings.yaml"}),
        ("csvi ablate --variants=caj", {"--variants=caj", "--variants=caj+"}, set()),
        ("csvi reproduce sysu --config ", {"sysu", "methods/agw", "settings.yaml"}, {"segmenters/example_onnx"}),
    ],
)
def test_tab_completes(line, expected, absent, pressed_tab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").touch()
    offered = pressed_tab(line)
    assert expected <= offered
    assert not absent & {answer.strip() for answer in offered}


def test_tab_is_answered_without_torch(tmp_path):
    """In a process of its own, as a shell asks, with answers in a file."""
    pytest.importorskip("argcomplete", reason="pip install 'csvi[completion]'")
    line, answers = "csvi train --method mp", tmp_path / "answers"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    asked["_ARGCOMPLETE_STDOUT_FILENAME"] = str(answers)
    command = [sys.executable, "-X", "importtime", "-m", "csvi"]
    imported = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | asked).stderr
    assert answers.read_text() == "mpanet "
    assert "| argcomplete" in imported
    assert "torch" not in {line.rpartition("|")[2].strip() for line in imported.splitlines()}


def test_the_package_is_the_program():
    command = [sys.executable, "-m", "csvi", "--version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"csvi {csvi.__version__}\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*command.split(), "--help")
    assert exit.value.code == 0
    assert f"usage: csvi {command}".rstrip() in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "ablate"])
@pytest.mark.parametrize("method", METHODS)
def test_help_of_a_method_shows_its_settings(method, command, capsys):
    with pytest.raises(SystemExit) as exit:
        run(command, "--method", method, "--help")
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    assert "--method.backbone" in shown
    assert ("(Eq. 3)" in shown) == ("--method.share_classifier" in shown)
    assert "--data.height" in shown
    assert ("--method.segmentation_weight" in shown) == hasattr(find_method(method).Settings(), "segmentation_weight")
    assert ("--method.weights_from" in shown) == (method in {"coseg", "coseg+"})


def test_help_shows_how_a_method_is_named_and_errors_point_to_its_settings(capsys):
    with pytest.raises(SystemExit):
        run("train", "--method", "coseg", "--help")
    shown = capsys.readouterr().out
    assert "--method NAME" in shown
    assert "--method CONFIG" not in shown
    assert "--method.name" not in shown
    with pytest.raises(SystemExit):
        run("train", "--method", "baseline", "--method.widths", "3")
    assert capsys.readouterr().err.endswith("(see csvi train --method baseline --help)\n")


def test_runs_are_named_by_fold_where_a_layout_has_several(monkeypatch):
    config = Config(find_method("baseline").Settings(), DataConfig(layout="ours:Folds", fold=3))
    for folds, dataset in ((5, "ours.Folds-3"), (1, "ours.Folds")):
        layout = type("Folds", (Layout,), {"folds": folds})
        monkeypatch.setattr("csvi.data.find_layout", lambda name, layout=layout: layout())
        assert name_of(config) == f"{dataset}-resnet50-baseline-0"


@pytest.mark.slow
def test_all_methods_are_listed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("methods") == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.split()[:1] and line[0] != " "}
    for name in METHODS:
        assert ("needed" in rows[name]) == find_method(name).needs_masks
    assert max(map(len, text.splitlines())) <= 80
    assert "Information" in text


@pytest.fixture
def config_with(monkeypatch):
    """The settings that `csvi train` would train with under these arguments."""

    def parse(*arguments):
        seen = []
        monkeypatch.setattr("csvi.train.loop.train", lambda config, *_: seen.append(config))
        assert run("train", *arguments, "--run=run") == 0
        return seen[0]

    return parse


@pytest.mark.slow
def test_another_method_than_the_files_takes_what_it_has_too(config_with, tmp_path):
    file = tmp_path / "settings.yaml"
    method = {"name": "coseg", "backbone": "resnet18", "parts": 3, "segmentation_weight": 20, "head": False}
    file.write_text(yaml.safe_dump({"method": method, "data": {"height": 144}}))
    plain = config_with(f"--config={file}")
    assert vars(plain.method).items() >= method.items()
    for order in (["--config", file, "--method", "decode"], ["--method=decode", f"--config={file}"]):
        decode = config_with(*order)
        assert (decode.method.name, decode.method.backbone, decode.method.parts) == ("decode", "resnet18", 3)
        assert decode.method.segmentation_weight == 20
        assert not hasattr(decode.method, "head")
        assert decode.data.height == 144
    baseline = config_with(f"--config={file}", "--method=baseline", "--method.parts=2")
    assert (baseline.method.name, baseline.method.backbone, baseline.method.parts) == ("baseline", "resnet18", 2)
    assert not hasattr(baseline.method, "segmentation_weight")


def test_another_method_than_a_runs_takes_what_was_changed_and_its_own_defaults_for_the_rest(config_with, tmp_path):
    file = tmp_path / "config.yaml"
    save_config(Config(find_method("coseg").Settings(parts=3, widths=(8, 4))), file)
    ours = config_with("--config", file, "--method=coseg+").method
    assert (ours.parts, tuple(ours.widths), ours.decoder) == (3, (8, 4), "lean")
    assert config_with("--config", file, "--method=hctri").method.part_dim == find_method("hctri").Settings().part_dim


def test_of_several_files_the_last_word_holds_also_for_another_method(config_with, tmp_path):
    one, two, three = (tmp_path / f"{name}.yaml" for name in ("one", "two", "three"))
    one.write_text("method: {name: coseg, center_weight: 1, parts: 3}")
    two.write_text("method: {name: coseg, center_weight: 0.5}")
    three.write_text("data: {height: 144}")
    baseline = config_with("--config", one, "--config", two, "--method=baseline").method
    assert (baseline.center_weight, baseline.parts) == (0.5, 3)
    assert config_with("--config=methods/agw", "--config", three).method.name == "agw"


def test_a_misspelt_setting_of_a_file_is_not_passed_over_for_any_method(config_with, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text("method: {name: baseline, segmentation_weight: 20}")
    for another in ([], ["--method=coseg"]):
        with contextlib.suppress(SystemExit):
            assert run("train", f"--config={file}", *another) == 1
        assert "segmentation_weight" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demo", "sysu", "regdb", "llcm", "study"])
def test_the_settings_that_are_shipped_are_read(config_with, name):
    section = yaml.safe_load(shipped_config(name).read_text())
    found = config_with("--config", shipped_config(name))
    assert found.method.name == section.get("method", {}).get("name", "coseg")
    assert found.data.layout == section["data"].get("layout", "sysu")


def test_settings_that_are_shipped_have_a_name_and_a_file_of_that_name_goes_first(config_with, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_with("--config", "regdb").data.layout == "regdb"
    Path("methods").mkdir()  # a folder hides nothing
    assert config_with("--config=methods/agw").method.name == "agw"
    Path("regdb").write_text("data: {layout: llcm}")
    assert config_with("--config", "regdb").data.layout == "llcm"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["trian"], "trian"),
        (["train", "--data.rot", "x"], "--data.rot"),
        (["train", "--train.lr", "fast"], "train.lr"),
        (["synth", "--preset", "huge"], "preset"),
        (["report"], "run"),
        (["evaluate", "run", "--expand", "many"], "expand"),
        (["evaluate", "run", "--galleries", "lucky"], "galleries"),
        (["report", "run", "--figures", "bogus"], "bogus"),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(arguments, word, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*arguments)
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert word in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["train"], "--data.root"),
        (["train", "--data.root", "nowhere"], "nowhere"),
        (["train", "--config", "nope"], "no such file: nope; csvi brings demo, letter, llcm, regdb, study, sysu, and"),
        (["train", "--config", "methods/age"], "as methods/NAME: agw, agw-llcm, caj,"),
        (["train", "--run=~nobody-here/run"], "~nobody-here/run"),
        (["synth", "~nobody-here/data"], "~nobody-here/data"),
        (["train", "--train.warmup", f"1{400 * '0'}"], "warmup"),
        (["ablate", "--grid", "{method.parts: []}"], "method.parts"),
        (["train", "--method", "cosegg"], "unknown method 'cosegg'"),
        (["train", "--method", "nowhere.at_all:Mine"], "cannot import the method nowhere.at_all:Mine"),
        (["evaluate", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["synth"], "nothing to write: give a folder for the benchmark, --sheet FILE, or both"),
        (["evaluate"], "--features"),
        (["evaluate", "run", "--features", "feats.npz"], "give what to evaluate: either run folders, or"),
        (["evaluate", "run", "other", "./run"], "run is given twice: name every run once"),
        (["compare", "run", "run/../run"], "run/../run is given twice"),
        (["compare", "run", "--against", "other", "run"], "run is given twice"),
        (["evaluate", "--features", "feats.npz"], "--data.root"),
        (["evaluate", "run", "--expand", "-1"], "expand"),
        (["check", "nowhere"], "nowhere"),
        (["compare", "nowhere"], "csvi evaluate nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(arguments, word, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    message = capsys.readouterr().err
    assert word in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("größe".encode("latin-1"), "decode"),
        ("data: {}".encode("utf-16"), "decode"),
        (b"method: 5", "method must hold names and values"),
        (b"data: 5", "data must hold names and values"),
        (b"- 1\n- 2", "it must hold names and values"),
        (b"a: " + 2000 * b"[" + 2000 * b"]", "recursion"),
        (b"seed: 1" + 5000 * b"0", "digits"),
        (b"a: \x1b", "characters"),
        (b"a: &a [1, 2]\nb: [*a, *a]", "an alias (*) is not read"),
        (b"data: {width: 32}\ndata: {height: 32}", "data stands twice"),
        (b"max_time: 5", "max_time"),
        (b"resume: [1]", "resume"),
        (b'run: "a\\0b"', "null byte"),
    ],
)
def test_a_file_of_settings_that_is_none(content, why, sysu_root, tmp_path, capsys):
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    try:
        status = run("train", "--config", file, "--data.root", sysu_root, "--method.weights=none")
    except SystemExit as exit:
        status = exit.code
    assert status in (1, 2)
    message = capsys.readouterr().err.splitlines()[-1]
    assert why in message
    assert len(message) < 1000


SETTINGS = flatten(Config(find_method("coseg").Settings()))
OF_EACH_TYPE = {type(value): name for name, value in SETTINGS.items()}.values()


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, "null") for name in SETTINGS), *((name, "[[1], 2, 3]") for name in OF_EACH_TYPE)],
)
def test_null_or_a_list_where_a_value_is_needed_is_one_sentence(name, value, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("csvi.train.loop.train", lambda *_: None)
    section, _, key = name.rpartition(".")
    file = tmp_path / "my.yaml"
    file.write_text(f"{section}: {{{key}: {value}}}" if section else f"{key}: {value}")
    try:
        status = run("train", "--config", file)
    except SystemExit as exit:
        status = exit.code
    message = capsys.readouterr().err
    if value == "null" and name in ("data.masks", "method.widths"):
        assert (status, message) == (0, "")
    else:
        assert status in (1, 2)
        assert message.count("\n") == 1
        assert name in message or name == "method.name"


@pytest.fixture
def signals_as_before():
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_before")
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_before_there_is_anything_to_save(number, monkeypatch, capsys):
    monkeypatch.setattr("csvi.train.loop.train", lambda *_: signal.raise_signal(number))
    assert run("train") == 75
    expected = f"csvi train: ended by {number.name}, the same command resumes or begins anew\n"
    assert capsys.readouterr().err == expected


@pytest.mark.usefixtures("signals_as_before")
@pytest.mark.parametrize("error", [StoppedError("saved"), TerminatedError("SIGUSR1")])
def test_a_run_that_ends_is_not_ended_by_another_signal(monkeypatch, error):
    monkeypatch.setattr("csvi.train.loop.train", Mock(side_effect=error))
    assert run("train") == 75
    for number in ENDING:
        signal.raise_signal(number)


def test_sighup_that_nohup_ignores_stays_ignored():
    code = "from csvi.cli import main; import signal; main(['check', 'nowhere']); signal.raise_signal(signal.SIGHUP)"
    command = ["sh", "-c", 'trap \'\' HUP; exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1


def test_a_command_in_a_thread_is_a_command(capsys):
    """Python lets only the main thread handle signals."""
    status = []
    thread = threading.Thread(target=lambda: status.append(run("check", "nowhere")))
    thread.start()
    thread.join()
    assert status == [1]
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_signal_to_all_processes_that_render_ends_them_without_a_word(tmp_path):
    arguments = ["synth", str(tmp_path / "data"), "--processes=2", "--height=48", "--width=24"]
    code = f"import sys; from csvi.cli import main; sys.exit(main({arguments}))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while len(list(tmp_path.rglob("*.jpg"))) < 25 and time.monotonic() < until:  # the first person has 20
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGHUP)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 75
    assert said == "csvi synth: ended by SIGHUP, the same command resumes or begins anew\n"


@pytest.mark.parametrize(
    "show",
    [
        lambda _: print("x" * 100_000),
        lambda _: print("x"),  # stays in the buffer until the end
        lambda _: plain_console().print("x"),
    ],
)
def test_a_command_whose_output_nobody_reads_ends_without_a_word(show, monkeypatch, capsys):
    monkeypatch.setattr("csvi.commands.check.run", show)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr("sys.stdout", unread)
        assert run("check", "root") == 141
    assert capsys.readouterr().err == ""


def test_another_broken_pipe_and_output_on_a_full_disk_are_errors(monkeypatch, capsys):
    def broken(_):
        raise BrokenPipeError("of a server")

    monkeypatch.setattr("csvi.commands.check.run", broken)
    assert run("check", "root") == 1
    assert capsys.readouterr().err == "csvi check: of a server\n"
    monkeypatch.setattr("csvi.commands.check.run", lambda _: print("x"))
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert run("check", "root") == 1
    assert "No space left" in capsys.readouterr().err


def test_too_little_memory(monkeypatch, capsys):
    monkeypatch.setattr("csvi.train.loop.train", lambda *_: torch.empty(2**50, dtype=torch.float64))
    assert run("train") == 1
    message = capsys.readouterr().err
    assert "not enough memory" in message
    assert "; training takes less with smaller batches" in message
    assert message.count("\n") == 1


@pytest.mark.slow
def test_the_whole_job_on_the_tiny_benchmark(tmp_path, capsys, real_trunk):
    """synth, train, stop, resume, evaluate, report: each says what to type next; the report is whole."""
    data, folder = tmp_path / "my data", tmp_path / "my run"

    def next_command():
        return shlex.split(capsys.readouterr().out.rpartition("next: csvi ")[2])

    small = ["--data.height=48", "--data.width=24", "--data.identities=4", "--data.images=2", "--data.workers=0"]
    settings = ["--data.root", data, "--data.cache", tmp_path / "cache", "--data.train_on=train", *small]
    settings += ["--method.backbone=mobilenet_v2", "--method.weights=packaged", "--method.part_dim=32"]
    settings += ["--train.epochs=1", "--train.validate_every=1", "--run", folder]

    assert run("synth", data, "--preset=tiny", "--height=48", "--width=24", "--processes=1") == 0
    assert next_command()[-4:] == ["--data.root", str(data), "--data.identities", "4"]
    assert run("train", *settings) == 0
    assert next_command() == ["evaluate", str(folder)]
    assert run("train", *settings) == 1
    assert "--resume auto" in capsys.readouterr().err
    assert run("train", *settings, "--train.epochs=2", "--resume=auto") == 0
    assert run("evaluate", folder) == 0
    table, _, report = capsys.readouterr().out.rpartition("next: csvi ")
    assert "all single-shot" in table
    assert "Synthetic data" in table
    assert shlex.split(report) == ["report", str(folder)]
    assert run("evaluate", folder, "--galleries", "official", "--data.masks", "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err
    (folder / "method.safetensors").rename(tmp_path / "method.safetensors")  # as in a model that was passed on
    assert run("evaluate", folder, "--galleries", "official") == 0
    table = capsys.readouterr().out
    assert "official galleries" in table
    assert "masks (IoU)" not in table
    (tmp_path / "method.safetensors").rename(folder / "method.safetensors")
    assert run("report", folder) == 0
    page = (folder / "report.html").read_text()
    assert "Synthetic data." in page
    assert page.count('class="list"') == 10
    assert page.count('class="triple"') == 10
    for kind in ("right", "wrong", "removed"):
        assert f'<figure class="{kind}">' in page
    expected = {"config.yaml", "metrics.jsonl", "last.ckpt", "model.safetensors", "config.json", "evaluation.json"}
    expected.add("evaluation-official.json")
    assert expected <= {file.name for file in folder.iterdir()}


@pytest.mark.slow
def test_check_tells_a_program_and_by_its_status(tmp_path, capsys):
    data = tmp_path / "data"
    assert run("synth", data, "--preset=tiny", "--layout=regdb", "--height=48", "--width=24", "--processes=1") == 0
    assert "--data.layout regdb" in capsys.readouterr().out
    assert run("check", data, "--decode") == 0
    assert "ok" in capsys.readouterr().out
    image = next(path for path in sorted((data / "Thermal").rglob("*.jpg")))
    image.write_bytes(image.read_bytes()[:300])
    assert run("check", data, "--decode", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [finding["kind"] for finding in found["problems"]] == ["broken"]
    assert image.name in found["problems"][0]["path"]


@pytest.mark.long
def test_ten_runs_in_one_call_features_and_a_comparison(tmp_path, capsys):
    data, cache = tmp_path / "data", f"--data.cache={tmp_path / 'cache'}"
    run("synth", data, "--preset=tiny", "--layout=regdb", "--height=48", "--width=24", "--processes=1")
    small = ["--data.height=48", "--data.width=24", "--data.identities=4", "--data.images=2", "--data.workers=0", cache]
    small += ["--method.backbone=mobilenet_v2", "--method.weights=none", "--method.part_dim=8", "--method=baseline"]
    for fold in (1, 2):
        settings = ["--data.layout=regdb", f"--data.root={data}", f"--data.fold={fold}", "--train.epochs=1", *small]
        assert run("train", *settings, f"--run={tmp_path}/regdb-{fold}") == 0
    capsys.readouterr()
    runs = [tmp_path / "regdb-1", tmp_path / "regdb-2"]
    assert run("evaluate", *runs) == 0
    table = capsys.readouterr().out
    assert "mean of 2 runs" in table
    assert "Folds 1, 2: the protocol wants a model for each of 1 to 10" in " ".join(table.split())
    assert run("evaluate", *runs, "--json", "--rerank") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["evaluations"]) == 2
    assert found["summary"]["folds"] == [1, 2]
    assert all("k-reciprocal" in result["refinements"][0] for e in found["evaluations"] for result in e["protocols"])
    assert (tmp_path / "regdb-1" / "evaluation-k-reciprocal-re-ranking.json").is_file()
    assert run("compare", *runs) == 1
    assert "folds" in capsys.readouterr().err
    assert run("compare", runs[0], runs[0] / "evaluation-k-reciprocal-re-ranking.json") == 0
    assert "Δ R1" in capsys.readouterr().out
    reranked = [folder / "evaluation-k-reciprocal-re-ranking.json" for folder in runs]
    assert run("compare", *runs, "--against", *reranked) == 0
    assert capsys.readouterr().out.count("2 × ") == 3  # in the table, and where it says that one is re-ranked
    assert run("compare", *runs, "--against", reranked[0]) == 1
    assert "different folds" in capsys.readouterr().err

    benchmark = read_benchmark(DataConfig(root=str(data), layout="regdb", fold=2))
    paths = np.array([record.path for record in benchmark.test])
    features = tmp_path / "feats.npz"
    np.savez(features, embedding=np.eye(99)[[record.identity for record in benchmark.test]], path=paths)
    assert run("evaluate", f"--features={features}", f"--data.root={data}", "--data.fold=2", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert [result["metrics"]["mINP"]["mean"] for result in found["protocols"]] == [1, 1]
    assert json.loads((tmp_path / "feats.evaluation-fold-2.json").read_text())["protocols"] == found["protocols"]
    assert run("evaluate", f"--features={features}", f"--data.root={data}", "--data.fold=1") == 1
    assert "no embedding of" in capsys.readouterr().err


@pytest.mark.slow
def test_an_error_is_all_that_a_failing_command_prints():
    """In a process of its own: libraries print when they are imported."""
    command = [sys.executable, "-c", "import csvi.cli; csvi.cli.main(['train', '--data.root', 'nowhere'])"]
    assert subprocess.run(command, check=False, capture_output=True, text=True).stderr.count("\n") == 1
