"""Embeddings in, the metrics of the field out; knows neither settings nor runs nor datasets."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from csvi.evaluate.definition import METRICS
from csvi.evaluate.protocols import GalleryDraw, Protocol, Rules, Trial

if TYPE_CHECKING:
    from csvi.evaluate.metrics import Score, score, score_embeddings
    from csvi.evaluate.refine import Refinement
    from csvi.evaluate.scoring import Result, evaluate_protocol, evaluate_protocols

SCORING = {
    **dict.fromkeys(("Score", "score", "score_embeddings"), "metrics"),
    "Refinement": "refine",
    **dict.fromkeys(("Result", "evaluate_protocol", "evaluate_protocols"), "scoring"),
}
"""Name → module that is imported with its first use: torch and numba, without which datasets are read and checked."""


def __getattr__(name: str) -> Any:
    if name not in SCORING:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{SCORING[name]}"), name)


__all__ = [
    "METRICS",
    "GalleryDraw",
    "Protocol",
    "Refinement",
    "Result",
    "Rules",
    "Score",
    "Trial",
    "evaluate_protocol",
    "evaluate_protocols",
    "score",
    "score_embeddings",
]
