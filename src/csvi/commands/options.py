"""The options that all commands on runs share: the data that a run is tested on, and how it is tested."""

from typing import TYPE_CHECKING

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.config import MaskValues

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
    add_mask_option(parser, "by default the run's")
    add_range_options(parser, "by default the run's")
    parser.add_argument("--data.cache", help="folder of decoded images; by default the run's")


def add_mask_option(parser: Parser, otherwise: str) -> None:
    """Add --data.mask_values; the help says what it is `otherwise`."""
    what = "what marks a person in a mask: 255, 0 (inverted), nonzero (labels), alpha (cut-outs)"
    parser.add_argument("--data.mask_values", type=MaskValues, help=f"{what}; {otherwise}")


def add_range_options(parser: Parser, otherwise: str) -> None:
    """Add --data.infrared_range and --data.visible_range; the help says what they are `otherwise`."""
    for modality in ("infrared", "visible"):
        what = f"values that become black and white in {modality} images of more than 8 bits, as 7500,8400"
        parser.add_argument(f"--data.{modality}_range", help=f"{what}; {otherwise}")


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
