"""Segmenters by name, as `--segmenter` gives them."""

from pathlib import Path

from csvi.config import shipped_config
from csvi.errors import CsviError, in_one_line
from csvi.masks.external import open_model_file
from csvi.masks.segmenter import Segmenter, Several
from csvi.paths import digest_of, expanded
from csvi.plugins import find

CLASSES = {"embedded": "csvi.masks.embedded:Embedded"}
"""Name → class of a segmenter that csvi has itself."""
TORCHVISION = ("deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "maskrcnn_resnet50_fpn")
"""Names of networks in torchvision."""
SUFFIXES = (".yaml", ".yml")
"""Suffixes of a file that describes a model."""


def described() -> dict[str, Path]:
    """Name → YAML of the models of others that csvi describes; their files are the user's to get."""
    return {file.stem: file for file in sorted(shipped_config("segmenters/blazepose_lite").parent.glob("*.yaml"))}


def find_segmenter(names: str) -> Segmenter:
    """Build a segmenter, or the mean of several.

    Args:
        names: one or more with commas between them. Each is `embedded`, the name or path of a YAML that describes a
            model file, the name of a network in torchvision, or `module:Class`; and may end in `=FILE`, the file of
            the model or its weights.

    Raises:
        CsviError: a name is unknown, or a file is missing or wrong.
    """
    each = [_one(name.strip()) for name in names.split(",")]
    return each[0] if len(each) == 1 else Several(each)


def _one(text: str) -> Segmenter:
    name, _, path = (text, "", "") if text.endswith(SUFFIXES) else text.partition("=")
    file = expanded(path) if path else None
    segmenter = _opened(name, file, text)
    of_yaml = name not in described() and name.endswith(SUFFIXES)
    segmenter.spec = str(expanded(name).absolute()) if of_yaml else name
    if file is not None:
        segmenter.spec += f"={file.absolute()}"
        digest = f" ({digest_of(file)[:8]})" if file.is_file() else ""
        segmenter.name += f"={file.name}{digest}"  # so that masks by two files are never mixed
    return segmenter


def _opened(name: str, file: Path | None, text: str) -> Segmenter:
    """Build a segmenter by its name and, where one is given, a file; `text` is both as they were given."""
    if name in described() or name.endswith(SUFFIXES):
        return open_model_file(described().get(name) or expanded(name), file)
    if name in TORCHVISION:
        from csvi.masks.torchvision_models import torchvision_segmenter

        return torchvision_segmenter(name, file)
    if name not in CLASSES and ":" not in name:
        known = ", ".join((*CLASSES, *described(), *TORCHVISION))
        raise CsviError(
            f"unknown segmenter {text!r}: choose one of {known}, a .yaml that describes a model, or module:Class"
        )
    kind = find(name, CLASSES, Segmenter, "segmenter")
    try:
        segmenter = kind() if file is None else kind(file)
        if not isinstance(getattr(segmenter, "name", None), str):
            raise CsviError(f"the segmenter {text} has no name: give its class a `name`, text that masks.json holds")
        return segmenter
    except CsviError:
        raise
    except Exception as error:  # a class of somebody else may raise anything
        raise CsviError(f"cannot build the segmenter {text} ({type(error).__name__}: {in_one_line(error)})") from error
