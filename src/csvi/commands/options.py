"""The options that all commands on runs share: the data that a run is tested on, and how it is tested."""

from typing import TYPE_CHECKING

from jsonargparse import Namespace

from csvi.commands.parser import Parser

if TYPE_CHECKING:
    from csvi.runs.run import Options


def add_data_options(parser: Parser) -> None:
    """Add the --data.* options: another dataset than the one that a run was trained on."""
    parser.add_argument("--data.root", help="dataset; by default the one that the run was trained on")
    parser.add_argument(
        "--data.layout", help="its layout (sysu, regdb, llcm, folder); by default the one it looks like"
    )
    parser.add_argument("--data.fold", type=int, help="fold of it (RegDB); by default the run's")
    parser.add_argument("--data.masks", help="folder of person masks; by default ROOT/masks")
    parser.add_argument("--data.cache", help="folder of decoded images; by default the run's")


def add_test_options(parser: Parser) -> None:
    """Add all options of an evaluation."""
    add_data_options(parser)
    parser.add_argument("--gallery", choices=["seeded", "official"], help="how SYSU-MM01's galleries are drawn; seeded")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image; the protocols do not")
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking; the protocols do not")
    parser.add_argument("--expand", type=int, default=0, help="query expansion by so many neighbours; ditto")


def options_of(settings: Namespace) -> "Options":
    """Read what `add_data_options` or `add_test_options` has added."""
    from csvi.evaluate import Refinement
    from csvi.runs.run import Options

    found = dict(settings.data)
    if "gallery" in settings:
        found |= {name: settings[name] for name in ("gallery", "flip")}
        found["refinement"] = Refinement(rerank=settings.rerank, expand=settings.expand)
    return Options(**found)
