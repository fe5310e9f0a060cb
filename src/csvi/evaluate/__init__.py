"""Embeddings in, the metrics of the field out; knows neither settings nor runs nor datasets."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from csvi.evaluate.definition import METRICS
from csvi.evaluate.protocols import GalleryDraw, Protocol, Rules, Trial

if TYPE_CHECKING:
    from csvi.evaluate.metrics import Score, score, score_embeddings
    from csvi.evaluate.refine import Refinement
    from csvi.evaluate.scoring import Result, evaluate_protocol, evaluate_protocols

__all__ = [
    "METRICS", "GalleryDraw", "Protocol", "Refinement", "Result", "Rules", "Score", "Trial", "evaluate_protocol",
    "evaluate_protocols", "score", "score_embeddings",
]  # fmt: skip

SCORING = {
    "metrics": ("Score", "score", "score_embeddings"),
    "refine": ("Refinement",),
    "scoring": ("Result", "evaluate_protocol", "evaluate_protocols"),
}
"""Module → names that import it with their first use: torch and numba, without which datasets are read and checked."""


def __getattr__(name: str) -> Any:
    for module, names in SCORING.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
