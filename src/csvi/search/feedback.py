"""Relevance feedback: what people say of the images that were found moves the query."""

import numpy as np

QUERY, RIGHT, WRONG = 1.0, 0.75, 0.15
"""Weights α, β and γ of Rocchio's formula as Manning, Raghavan and Schütze give them (Introduction to Information
Retrieval, 2008, Section 9.1.1)."""


def rocchio(query: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Move a query towards the mean of right embeddings and away from that of wrong ones; its length stays.

    Rocchio's formula (1971): q' = α q + β mean(right) - γ mean(wrong).

    >>> rocchio(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), np.empty((0, 2)))  # (1, 0.75) of length 1
    array([0.8, 0.6])

    Args:
        query: (dim,).
        right: (r, dim), none or more.
        wrong: (w, dim), none or more.

    Returns:
        (dim,); the query itself if nothing is said, or what was said leaves nothing of it.
    """
    if not (len(right) or len(wrong)):
        return query
    moved = QUERY * query
    if len(right):
        moved = moved + RIGHT * right.mean(0)
    if len(wrong):
        moved = moved - WRONG * wrong.mean(0)
    length = np.linalg.norm(moved)
    return moved * (np.linalg.norm(query) / length) if length else query
