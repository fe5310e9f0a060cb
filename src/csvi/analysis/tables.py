"""Results as tables for the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table

from csvi.evaluate.runs import Evaluation, MaskResult
from csvi.evaluate.scoring import Result


def print_evaluation(evaluation: Evaluation) -> None:
    """The protocols, and the masks where there are any; fits 80 columns."""
    console = Console()
    console.print(f"\n{evaluation.benchmark}, {evaluation.protocols[0].gallery} galleries", style="bold")
    if evaluation.synthetic:
        console.print("Synthetic data: these figures say nothing about SYSU-MM01, RegDB or LLCM.")
    console.print(protocol_table(evaluation.protocols))
    if evaluation.masks:
        console.print(mask_table(evaluation.masks))


def protocol_table(results: list[Result]) -> Table:
    """A row a setting; figures in %, mean ± standard deviation over the trials."""
    table = _table("setting (%)", *results[0].figures, "chance")
    for result in results:
        figures = [f"{100 * spread.mean:.1f}±{100 * spread.std:.1f}" for spread in result.figures.values()]
        table.add_row(result.protocol.replace("-search", ""), *figures, f"{100 * result.chance:.1f}")
    return table


def mask_table(masks: dict[str, MaskResult]) -> Table:
    """A row a modality; means of the intersection over union."""
    table = _table("masks (IoU)", "predicted", "best constant mask", "images")
    for modality, result in masks.items():
        table.add_row(modality, f"{result.iou:.3f}", f"{result.constant_iou:.3f}", str(result.images))
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
