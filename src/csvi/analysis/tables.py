"""Results as tables for the terminal."""

from rich.console import Console
from rich.table import Table

from csvi.evaluate.runs import Evaluation


def print_evaluation(evaluation: Evaluation) -> None:
    """The protocols, and the masks where there are any."""
    console = Console()
    table = Table(
        title=f"{evaluation.benchmark}, {evaluation.protocols[0].gallery} galleries (mean ± std over trials, %)"
    )
    table.add_column("setting")
    for name in evaluation.protocols[0].figures:
        table.add_column(name, justify="right")
    table.add_column("chance R1", justify="right")
    table.add_column("queries", justify="right")
    table.add_column("gallery", justify="right")
    for result in evaluation.protocols:
        figures = [f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f}" for spread in result.figures.values()]
        counts = [f"{100 * result.chance:.1f}", str(result.valid), str(result.gallery_images)]
        table.add_row(result.protocol, *figures, *counts)
    console.print(table)
    if evaluation.synthetic:
        console.print("Synthetic data: these figures say nothing about SYSU-MM01, RegDB or LLCM.")
    if evaluation.masks:
        table = Table(title="Person masks, mean intersection over union")
        for column in ("modality", "predicted", "best constant mask", "images"):
            table.add_column(column, justify="left" if column == "modality" else "right")
        for modality, masks in evaluation.masks.items():
            table.add_row(modality, f"{masks.iou:.3f}", f"{masks.constant_iou:.3f}", str(masks.images))
        console.print(table)
