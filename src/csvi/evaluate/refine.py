"""What may be done to a ranking beside sorting it by distance. Off by default; whoever uses it says so."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Refinement:
    """Which techniques, and their settings."""

    rerank: bool = False
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017)."""
    expand: int = 0
    """Gallery neighbours that a query is averaged with (query expansion); 0 for none."""

    def names(self) -> list[str]:
        """What is done, in words, in the order that it is done in."""
        return []


NO_REFINEMENT = Refinement()


def refined_distances(query: Tensor, gallery: Tensor, unseen: Tensor, refinement: Refinement) -> Tensor:
    """(queries, gallery) distances."""
    raise NotImplementedError
