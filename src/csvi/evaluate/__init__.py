"""Embeddings in, the numbers of the field out: metrics and protocols."""

from csvi.evaluate.metrics import RULES, Rules, Score, score
from csvi.evaluate.protocols import (
    Protocol,
    Result,
    evaluate_protocol,
    evaluate_protocols,
    protocols_of,
    sysu_protocols,
)

__all__ = [
    "RULES",
    "Protocol",
    "Result",
    "Rules",
    "Score",
    "evaluate_protocol",
    "evaluate_protocols",
    "protocols_of",
    "score",
    "sysu_protocols",
]
