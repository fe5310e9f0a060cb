"""`csvi masks`: person masks for real images."""

from pathlib import Path

from jsonargparse import Namespace

from csvi.commands.options import (
    SOURCE,
    add_crop_options,
    add_engine_options,
    add_mask_option,
    crops_of,
    engine_of,
)
from csvi.commands.parser import Parser, picked
from csvi.paths import as_argument, expanded

SUMMARY = "Predict the person masks that co-segmentation learns from."
WORDS = ("import", "train", "samples")
"""What may stand in place of a dataset."""


def add_arguments(parser: Parser) -> None:
    word = next(iter(parser.arguments), "")
    if word == "import":
        parser.add_argument("word", choices=WORDS, help="convert masks that others made")
        parser.add_argument("source", help="folder of their files, or of arrays (train_RGB_img_mask.npy), or one array")
        parser.add_argument("--out", required=True, help="folder of masks to write")
        parser.add_argument("--files", default="*", help="pattern of the names of mask files, as '*_mask.png'; all")
        parser.add_argument("--data.root", required=True, help="dataset of any layout, or a folder of crops")
        parser.add_argument("--data.layout", help="layout of the dataset; by default the one it looks like")
        parser.add_argument("--data.fold", type=int, default=1, help="fold that arrays are of (RegDB); 1")
        add_mask_option(parser, "255")
    elif word == "train":
        from csvi.masks.settings import FitConfig

        parser.add_argument("word", choices=WORDS, help="train the embedded segmenter anew, on synthetic people alone")
        parser.add_argument("out", help="file of weights to write, .safetensors")
        parser.add_argument("--people", help="folder of rendered people, about 700 MB; by default beside OUT")
        parser.add_class_arguments(FitConfig)
    elif word == "samples":
        parser.add_argument("word", choices=WORDS, help="draw samples that the segmenter is trained on")
        parser.add_argument("out", help="PNG file to write")
        parser.add_argument(
            "--people", required=True, help="a synthetic benchmark, as of csvi synth PEOPLE --layout folder"
        )
        parser.add_argument("--seed", type=int, default=0, help="of the samples")
    else:
        parser.add_argument("root", help=f"{SOURCE}; or: import, train, samples")
        parser.add_argument("--out", required=True, help="folder of masks to write")
        parser.add_argument("--segmenter", default="embedded", help="embedded, a YAML file, module:Class, or several")
        add_crop_options(parser, "by default measured")
        add_engine_options(parser)


def run(settings: Namespace) -> None:
    {"import": _import, "train": _train, "samples": _samples}.get(settings.get("word", ""), _make)(settings)


def _make(settings: Namespace) -> None:
    from csvi.masks.find import find_segmenter
    from csvi.masks.make import make_masks
    from csvi.masks.pictures import write_least_sure
    from csvi.masks.tables import print_made

    engine = engine_of(settings)
    segmenter = find_segmenter(settings.segmenter)
    out = expanded(settings.out)
    crops = crops_of(settings, settings.root, without=[out])
    made = make_masks(crops, out, segmenter, engine)
    sheet = write_least_sure(made.lines, crops, out)
    print(f"modality: {crops.source_of_modality}")
    print_made(made, segmenter)
    print(f"masks: {out}\nleast sure: {sheet}")
    _print_next(crops.layout, settings.root, out)


def _import(settings: Namespace) -> None:
    from csvi.config import DataConfig
    from csvi.masks.imports import import_masks
    from csvi.masks.tables import print_imported

    given = {name: value for name in ("root", "fold", "mask_values") if (value := settings.data[name]) is not None}
    out = expanded(settings.out)
    imported = import_masks(expanded(settings.source), out, DataConfig(**given), settings.data.layout, settings.files)
    print_imported(imported)
    print(f"masks: {out}")
    _print_next(imported.layout, settings.data.root, out, settings.data.fold)


def _print_next(layout: str | None, root: str, out: Path, fold: int = 1) -> None:
    if layout:
        option = [] if layout == "sysu" else ["--data.layout", layout]
        option += ["--data.fold", str(fold)] if fold > 1 else []
        following = ["csvi", "train", *option, "--data.root", as_argument(root), "--data.masks", as_argument(out)]
        following += ["--data.without_mask", "train"]  # images whose mask is doubtful
        print(f"next: {' '.join(following)}")


def _train(settings: Namespace) -> None:
    from csvi.masks.fit import fit_segmenter
    from csvi.masks.settings import FitConfig

    config = picked(FitConfig, settings)
    out = expanded(settings.out)
    people = expanded(settings.people) if settings.people else out.with_name("people")
    facts = fit_segmenter(out, people, config)
    for name, value in facts.items():
        if isinstance(value, float):
            print(f"{name.replace('_', ' ')}: {value:.3f}")
    print(f"segmenter: {out}\nnext: csvi masks ROOT --out MASKS --segmenter embedded={as_argument(out)}")


def _samples(settings: Namespace) -> None:
    from csvi.masks.fit import people_of
    from csvi.masks.pictures import write_samples

    write_samples(people_of(expanded(settings.people)), expanded(settings.out), settings.seed)
    print(f"samples: {settings.out}")
