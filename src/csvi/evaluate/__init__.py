"""Embeddings in, the numbers of the field out: metrics and protocols."""

from csvi.evaluate.metrics import RULES, Rules, Score, score, score_embeddings
from csvi.evaluate.protocols import (
    Protocol,
    Trial,
    folder_protocols,
    llcm_protocols,
    protocols_of,
    regdb_protocols,
    sysu_protocols,
)
from csvi.evaluate.refine import Refinement
from csvi.evaluate.scoring import Result, evaluate_protocol, evaluate_protocols

__all__ = [
    "RULES",
    "Protocol",
    "Refinement",
    "Result",
    "Rules",
    "Score",
    "Trial",
    "evaluate_protocol",
    "evaluate_protocols",
    "folder_protocols",
    "llcm_protocols",
    "protocols_of",
    "regdb_protocols",
    "score",
    "score_embeddings",
    "sysu_protocols",
]
