"""Options that several commands share, and what they describe."""

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.config import RANGES, DataConfig, MaskValues
from csvi.errors import CsviError
from csvi.paths import expanded

if TYPE_CHECKING:
    from csvi.data.crops import Crops
    from csvi.ray_engine import RayEngine
    from csvi.runs.run import Options
    from csvi.search.embedder import Embedder
    from csvi.search.gallery import Facts
    from csvi.search.query import Where

MODALITIES = ["visible", "infrared"]
ENGINES = ["local", "ray"]
FOR_RAY = ("address", "workers", "worker_cpus", "worker_gpus")
"""Options of the engine ray."""
SOURCE = "dataset of any layout, a folder of crops, or a table of them (.csv)"
"""What `crops_of` reads."""


def add_data_options(parser: Parser) -> None:
    """Add the --data.* options: another dataset than the one that a run was trained on."""
    parser.add_argument("--data.root", help="dataset; by default the one that the run was trained on")
    parser.add_argument(
        "--data.layout",
        help="its layout (sysu, regdb, llcm, folder); by default the run's or, of other data, the one it looks like",
    )
    parser.add_argument("--data.fold", type=int, help="fold of it (RegDB); by default the run's")
    parser.add_argument(
        "--data.masks", help="folder of person masks; by default the run's or, of other data, ROOT/masks"
    )
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


def add_crop_options(parser: Parser, otherwise: str) -> None:
    """Add what says how crops are read; the help says what ranges are `otherwise`."""
    parser.add_argument("--data.layout", help="layout of the dataset; by default the one it looks like")
    parser.add_argument(
        "--modality",
        choices=MODALITIES,
        help="of all images of a folder or table; by default that of the table, the camera, the folder or the colours",
    )
    parser.add_argument("--infrared_cameras", help="names of infrared cameras of a folder or table, as 3,6")
    add_range_options(parser, otherwise)


def crops_of(
    settings: Namespace,
    source: str,
    without: Collection[Path] = (),
    own: DataConfig | None = None,
    top: Path | None = None,
) -> "Crops":
    """Read the crops of a source, as the options of `add_crop_options` say; see `csvi.data.crops.read_crops`.

    Ranges that no option gives are those of the model whose data settings are `own`.
    """
    from csvi.data.crops import read_crops
    from csvi.data.records import Modality

    return read_crops(
        DataConfig(root=source, **ranges_of(settings, own or DataConfig())),
        settings.data.layout,
        modality=Modality[settings.modality.upper()] if settings.modality else None,
        infrared_cameras=_names(settings, "infrared_cameras"),
        without=without,
        top=top,
    )


def ranges_of(settings: Namespace, own: DataConfig) -> dict[str, Any]:
    """Read what `add_range_options` has added; ranges that no option gives are those of `own`."""
    return {name: settings.data[name] or getattr(own, name) for name in RANGES}


def add_model_options(parser: Parser) -> None:
    """Add what says which model embeds."""
    alone = "a file of csvi export --format onnx (.onnx, needs no torch)"
    parser.add_argument("--run", help=f"run folder, folder of a model alone, OWNER/NAME of the Hub, or {alone}")
    parser.add_argument("--dimensions", type=int, help="reduce embeddings to so many numbers; by default the model's")


def embedder_of(settings: Namespace, facts: "Facts | None" = None) -> "Embedder":
    """Open the model that is named, or else the one that filled the gallery of these facts."""
    from csvi.search.embedder import open_embedder

    model, dimensions = settings.run, settings.dimensions
    if not model:
        if not facts:
            raise CsviError("give the model that embeds: --run RUN (only a gallery that is filled names its own)")
        model = facts.model
        missing = model.startswith("/") and not expanded(model).exists()
        if not model or missing:
            why = f"{model} is not there any more" if missing else "it was filled with embeddings"
            raise CsviError(
                f"the gallery is of {facts.name}, and where that model lies is not known ({why}): give --run RUN"
            )
    if dimensions is None and facts and "-pca" in facts.fingerprint:
        dimensions = facts.dim
    return open_embedder(model, dimensions)


def add_engine_options(parser: Parser, gpus: bool = True) -> None:
    """Add what says where the work is done; `gpus`: GPUs make it faster."""
    what = "where to work: local, in this process (default), or ray, in workers of Ray Data (pip install 'csvi[ray]')"
    parser.add_argument("--engine", choices=ENGINES, help=what)
    parser.add_argument("--address", help="Ray cluster, auto or HOST:6379; by default $RAY_ADDRESS, or this machine")
    parser.add_argument("--workers", type=int, help="workers of Ray; by default as many as its machines have room for")
    parser.add_argument("--worker_cpus", type=int, help="cores of one; by default 1, or with GPUs its share of them")
    if gpus:
        parser.add_argument("--worker_gpus", type=float, help="GPUs of one, as 0.5; by default 1 where there are any")


def engine_of(settings: Namespace) -> "RayEngine | None":
    """Read what `add_engine_options` has added; None is this process. Raises `CsviError` if options do not fit."""
    given = {name: value for name in FOR_RAY if (value := settings.get(name)) is not None}
    if settings.engine != "ray":
        if given:
            raise CsviError(f"--{next(iter(given))} is for --engine ray: add that, or leave it out")
        return None
    from csvi.ray_engine import RayEngine

    for name, least in (("workers", 1), ("worker_cpus", 1), ("worker_gpus", 0)):
        if given.get(name, least) < least:
            raise CsviError(f"--{name} {given[name]} must be at least {least}")
    if "worker_gpus" not in settings:
        given["worker_gpus"] = 0.0
    return RayEngine(**given)


def add_gallery_options(parser: Parser) -> None:
    """Add what says which gallery of embeddings is meant."""
    what = "gallery of embeddings: a file name, .db, or the address of a Milvus server, as http://localhost:19530"
    parser.add_argument("--gallery", required=True, help=what)
    parser.add_argument("--collection", default="csvi", help="its name there, if there are several; csvi")


def add_where_options(parser: Parser) -> None:
    """Add conditions on the images of a gallery."""
    parser.add_argument("--camera", help="names of cameras, as 1,2")
    parser.add_argument(
        "--since", help="not before this time, 2024-05-01 or 2024-05-01T12:00:00; UTC if no zone is named"
    )
    parser.add_argument("--until", help="not after this time, or not after the end of this day")
    parser.add_argument("--track", help="names of tracks, as 17,18")


def where_of(settings: Namespace) -> "Where":
    """Read what `add_where_options` has added, and --modality."""
    from csvi.search.query import Where, moment

    since = None if settings.since is None else moment(settings.since)
    until = None if settings.until is None else moment(settings.until, end=True)
    if since is not None and until is not None and since > until:
        raise CsviError(f"--since {settings.since} is later than --until {settings.until}")
    return Where(
        cameras=_names(settings, "camera"),
        modality=settings.modality,
        since=since,
        until=until,
        tracks=_names(settings, "track"),
    )


def _names(settings: Namespace, option: str) -> list[str]:
    """Split the names that an option gives; raises `CsviError` if it is there and gives none: it would mean all."""
    text = settings[option]
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise CsviError(f"--{option} {text!r} names nothing: write it as 1,2, or leave it out")
    return names


def add_test_options(parser: Parser) -> None:
    """Add all options of an evaluation."""
    add_data_options(parser)
    parser.add_argument(
        "--galleries", choices=["seeded", "official"], help="of SYSU-MM01: drawn by a seed, or its authors'; seeded"
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirror image; the protocols do not")
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking; the protocols do not")
    parser.add_argument("--expand", type=int, default=0, help="query expansion by so many neighbours; ditto")


def options_of(settings: Namespace) -> "Options":
    """Read what `add_data_options` or `add_test_options` has added."""
    from csvi.evaluate import Refinement
    from csvi.runs.run import Options

    found = dict(settings.data)
    if "galleries" in settings:
        refinement = Refinement(settings.rerank, settings.expand)
        found |= {"gallery": settings.galleries, "flip": settings.flip, "refinement": refinement}
    return Options(**found)


def test_arguments(settings: Namespace) -> list[str]:
    """Write what was given of the options of `add_test_options` as arguments, quoted for a shell."""
    given = [f"--data.{name}={shlex.quote(str(value))}" for name, value in settings.data.items() if value is not None]
    given += [f"--{name}={value}" for name in ("galleries", "expand") if (value := settings[name])]
    return given + [f"--{name}" for name in ("flip", "rerank") if settings[name]]
