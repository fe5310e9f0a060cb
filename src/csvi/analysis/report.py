"""`report.html`: one page about one run that needs nothing beside it."""

import base64
import io
import logging
import random
from pathlib import Path
from typing import NamedTuple

import torch
from jinja2 import Environment, PackageLoader
from PIL import Image

from csvi import __version__
from csvi.analysis.curves import loss_curves, validation_curves
from csvi.analysis.images import predicts_masks
from csvi.analysis.make_figure import FIGURES, figure_file
from csvi.data import ImageRecord, Modality, protocols_of
from csvi.data.depth import levels_of
from csvi.data.images import load_image
from csvi.data.masks import read_mask
from csvi.errors import CsviError
from csvi.evaluate import Protocol
from csvi.evaluate.metrics import removed
from csvi.model.weights import fingerprint_of
from csvi.paths import as_argument
from csvi.runs import Run
from csvi.runs.evaluation import evaluated
from csvi.writing import replacing

log = logging.getLogger(__name__)

PROBES = 10
"""Ranked lists, and half as many examples of masks of each modality."""
THUMBNAIL = 120
"""Height of an image on the page, in pixels."""


class Ranked(NamedTuple):
    """One gallery image in a ranked list."""

    image: str
    """Data URI."""
    label: str
    kind: str
    """`right`, `wrong`, or `removed`: not counted, by the protocol's rules."""
    rank: int | None
    """Rank from 1, among the images that count."""


class RankedList(NamedTuple):
    """A probe and what the gallery answers."""

    image: str
    label: str
    gallery: list[Ranked]


class MaskExample(NamedTuple):
    """An image with its true and its predicted mask, as data URIs."""

    label: str
    image: str
    true: str
    predicted: str


def write_report(run: Run) -> Path:
    """Write RUN/report.html: results, curves, ranked lists of probes drawn at random, and predicted masks.

    It shows what evaluation has left in the run folder; where that is not of these weights, images and settings, the
    run is evaluated now. Probes are never picked by their result.

    Raises:
        CsviError: a model of the Hub, which has no folder; or what the evaluation raises.
    """
    folder = run.folder
    if folder is None:
        raise CsviError(f"{run.path} is no folder: a report is written into the folder of a run")
    evaluation = evaluated(run)
    chosen = random.Random(0)
    headline = evaluation.protocols[0]
    asked = protocols_of(run.benchmark, "test", headline.gallery, trials=1)
    protocol = next(p for p in asked if p.name == headline.protocol)  # those without an answerable query have no result
    queries = sorted(chosen.sample(list(protocol.trials[0].query), min(PROBES, len(protocol.trials[0].query))))
    page = Environment(loader=PackageLoader("csvi.analysis"), autoescape=True).get_template("report.html.j2")
    pairs = evaluation.camera_pairs
    html = page.render(
        run=run.name,
        version=__version__,
        evaluation=evaluation,
        settings_of=run.config,
        method=run.config.method.name if run.config else run.net.method,
        data=run.data,
        headline=headline,
        losses=loss_curves(folder),
        validation=validation_curves(folder),
        protocol=protocol,
        rules=protocol.rules,
        name_of_camera=run.benchmark.name_of_camera,
        pairs={(pair.query, pair.gallery): pair for pair in pairs},
        query_cameras=sorted({pair.query for pair in pairs}),
        gallery_cameras=sorted({pair.gallery for pair in pairs}),
        lists=[ranked_list(query, protocol, run) for query in queries],
        masks=mask_examples(run, chosen) if evaluation.masks else [],
        figures=drawn_figures(run, folder),
        settings=(folder / "config.yaml").read_text() if run.config else "",
        identities=len({run.benchmark.test[i].identity for i in protocol.trials[0].query}),
        thumbnail=THUMBNAIL,
        pct=lambda share: f"{100 * share:.1f}",
    )
    file = folder / "report.html"
    with replacing(file) as partial:
        partial.write_text(html, encoding="utf-8")
    return file


def drawn_figures(run: Run, folder: Path) -> list[tuple[str, str]]:
    """Read each figure that `csvi figure` has left in RUN/figures of these weights and data: data URI and caption."""
    found, weights = [], fingerprint_of(folder)
    for name, kind in FIGURES.items():
        file = figure_file(run, name)
        if file is None or not file.is_file():
            continue
        with Image.open(file) as picture:
            source = picture.info.get("Source", weights)
        if source != weights:
            again = f"csvi report {as_argument(run.path)} --figures {name}"
            log.warning("%s is left out, it is of other weights than the run has now: %s draws it anew", file, again)
            continue
        found.append(("data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(), kind.caption))
    return found


def ranked_list(query: int, protocol: Protocol, run: Run, length: int = 10) -> RankedList:
    """List the nearest gallery images of a query in the protocol's first trial, and those that its rules remove."""
    records, gallery = run.benchmark.test, torch.tensor(protocol.trials[0].gallery)
    probe = records[query]
    distance = torch.linalg.vector_norm(run.embeddings[gallery] - run.embeddings[query], dim=1)
    identity, camera = (torch.tensor([getattr(records[i], name) for i in gallery]) for name in ("identity", "camera"))
    gone = removed(torch.tensor([probe.identity]), torch.tensor([probe.camera]), identity, camera, protocol.rules)[0]
    ranked: list[Ranked] = []
    rank = 0
    for column in distance.argsort(stable=True).tolist():
        record = records[int(gallery[column])]
        kind = "removed" if gone[column] else "right" if record.identity == probe.identity else "wrong"
        rank += kind != "removed"
        label = run.benchmark.label_of(record)
        ranked.append(Ranked(_thumbnail(run, record), label, kind, None if kind == "removed" else rank))
        if rank == length:
            break
    return RankedList(_thumbnail(run, probe), run.benchmark.label_of(probe), ranked)


def mask_examples(run: Run, chosen: random.Random) -> list[MaskExample]:
    """Show images drawn at random, half of them visible, with true and predicted masks; none where either is gone."""
    records, size = run.benchmark.test, (run.data.height, run.data.width)
    if not (predicts_masks(run) and all(record.mask for record in records)):
        return []
    by_modality = [[i for i, record in enumerate(records) if record.modality == modality] for modality in Modality]
    shown = [i for index in by_modality for i in sorted(chosen.sample(index, min(PROBES // 2, len(index))))]
    predicted = {
        i: mask
        for index, masks in run.masks_by_identity({records[i].identity for i in shown})
        for i, mask in zip(index, masks, strict=True)
    }
    return [
        MaskExample(
            run.benchmark.label_of(records[i]),
            _thumbnail(run, records[i]),
            _data_uri(Image.fromarray(read_mask(Path(str(records[i].mask)), *size, run.data.mask_values))),
            _data_uri(Image.fromarray((255 * predicted[i]).round().byte().numpy())),
        )
        for i in shown
    ]


def _thumbnail(run: Run, record: ImageRecord) -> str:
    thumbnail = load_image(run.benchmark.file(record), levels_of(run.data, record.modality))
    thumbnail.thumbnail((4 * THUMBNAIL, 2 * THUMBNAIL))
    return _data_uri(thumbnail)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
