"""Relevance feedback: what people say of the images that were found moves the query."""

import numpy as np

QUERY, RIGHT, WRONG = 1.0, 0.75, 0.15
"""Weights α, β and γ of Rocchio's formula as Manning, Raghavan and Schütze give them (Introduction to Information
Retrieval, 2008, Section 9.1.1)."""


def rocchio(query: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Move a query towards the mean of right embeddings and away from that of wrong ones; its length stays.

    Rocchio's formula (1971), q' = α q + β mean(right) - γ mean(wrong), of embeddings that are all brought to length 1
    first: a gallery that compares by cosine keeps them so, and probes come as the network gives them.

    >>> rocchio(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), np.empty((0, 2)))  # (1, 0.75) of length 1
    array([0.8, 0.6])

    Args:
        query: (dim,).
        right: (r, dim), none or more.
        wrong: (w, dim), none or more.

    Returns:
        (dim,); the query itself if nothing is said.
    """
    moved = QUERY * _unit(query)
    if len(right):
        moved = moved + RIGHT * _unit(right).mean(0)
    if len(wrong):
        moved = moved - WRONG * _unit(wrong).mean(0)
    return np.linalg.norm(query) * _unit(moved) if len(right) or len(wrong) else query


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Bring vectors (..., dim) to length 1; those of length 0 stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
