"""The options of all commands that open a run: on what it is tested, and how."""

from typing import TYPE_CHECKING

from jsonargparse import Namespace

from csvi.commands.parser import Parser

if TYPE_CHECKING:
    from csvi.runs.run import Options


def add_data_options(parser: Parser) -> None:
    """Let a command take another dataset than the one that a run was trained on."""
    parser.add_argument("--data.root", help="dataset; by default the one that the run was trained on")
    parser.add_argument(
        "--data.layout", help="its layout (sysu, regdb, llcm, folder); by default the one it looks like"
    )
    parser.add_argument("--data.fold", type=int, help="fold of it (RegDB); by default the run's")
    parser.add_argument("--data.masks", help="folder of person masks; by default ROOT/masks")
    parser.add_argument("--data.cache", help="folder of decoded images; by default the run's")


def add_test_options(parser: Parser) -> None:
    """Let a command take all options of an evaluation."""
    add_data_options(parser)
    parser.add_argument("--gallery", choices=["seeded", "official"], help="how SYSU-MM01's galleries are drawn; seeded")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image; the protocols do not")
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking; the protocols do not")
    parser.add_argument("--expand", type=int, default=0, help="query expansion by so many neighbours; ditto")


def data_options(settings: Namespace) -> "Options":
    """Read what `add_data_options` has added."""
    from csvi.runs.run import Options

    return Options(**vars(settings.data))


def test_options(settings: Namespace) -> "Options":
    """Read what `add_test_options` has added."""
    from csvi.evaluate import Refinement
    from csvi.runs.run import Options

    refinement = Refinement(rerank=settings.rerank, expand=settings.expand)
    return Options(**vars(settings.data), gallery=settings.gallery, flip=settings.flip, refinement=refinement)
