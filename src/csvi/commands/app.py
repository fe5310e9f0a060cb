"""`csvi app`: a page to search a gallery with."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from csvi.commands.options import add_gallery_options, add_model_options, embedder_of
from csvi.commands.parser import Parser
from csvi.plugins import imported

if TYPE_CHECKING:
    from csvi.search.app.desk import Desk

SUMMARY = "Open a page on which to search a gallery of embeddings, in a browser."
PASSWORD = "CSVI_PASSWORD"
"""Environment variable of the password."""
DEMO = Path("demo")
"""Folder of `csvi demo`."""


def add_arguments(parser: Parser) -> None:
    what = f"open a gallery of the test images of csvi demo in ./{DEMO}; runs csvi demo before, if it has not been run"
    parser.add_argument("--demo", action="store_true", help=what)
    if "--demo" not in parser.arguments:
        add_gallery_options(parser)
        add_model_options(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; any but this machine needs a password"
    )
    parser.add_argument("--port", type=int, default=7860, help="to listen at; 7860")
    seen = f"; all users of this machine see it in the list of processes, but not the environment variable {PASSWORD}"
    parser.add_argument("--password", help=f"that lets a visitor in{seen}")


def run(settings: Namespace) -> None:
    imported("gradio", "app", "csvi app")
    from csvi.search.app.server import USER, Server, check_open_to

    password = settings.password if settings.password is not None else os.environ.get(PASSWORD)
    check_open_to(settings.host, password)
    with contextlib.ExitStack() as stack:
        desk, hint = _demo(stack) if settings.demo else (_desk(settings, stack), "")
        server = stack.enter_context(Server(desk, settings.host, settings.port, password, hint))
        login = f", log in as {USER}" if password else ""
        print(f"page: {server.address}{login}; Ctrl-C closes it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    print("closed")


def _desk(settings: Namespace, stack: contextlib.ExitStack) -> "Desk":
    """Open the gallery and its model."""
    from csvi.search.app.desk import Desk
    from csvi.search.gallery import open_gallery

    gallery = stack.enter_context(open_gallery(settings.gallery, settings.collection))
    return Desk(gallery, embedder_of(settings, gallery.facts))


def _demo(stack: contextlib.ExitStack) -> "tuple[Desk, str]":
    """Open a gallery of the demo's test images, whatever of it has yet to be made; and name a probe."""
    from csvi.commands.demo import run_demo
    from csvi.data.crops import Crops
    from csvi.data.records import Modality
    from csvi.runs import Options, Run
    from csvi.search.app.desk import Desk
    from csvi.search.embedder import open_embedder
    from csvi.search.fill import Choices, add_crops, gallery_for_crops

    folder = DEMO / "run"
    if not (folder / "report.html").is_file():
        print(f"csvi demo has not been run in ./{DEMO}: it is now, which takes about 4 minutes", flush=True)
        run_demo(DEMO)
    run = Run.open(folder, Options(root=str(DEMO / "benchmark")))
    benchmark = run.benchmark
    crops = Crops(benchmark.root, run.data.layout, benchmark.test, run.data, benchmark.cameras)
    embedder = open_embedder(folder)
    gallery = gallery_for_crops(str(DEMO / "gallery.db"), crops, embedder, Choices())
    desk = Desk(stack.enter_context(gallery), embedder)
    add_crops(gallery, crops, embedder)
    probe = next(record for record in benchmark.test if record.modality == Modality.INFRARED)
    return desk, f"Synthetic people alone. A probe to drop: `{DEMO}/benchmark/{probe.path}`"
