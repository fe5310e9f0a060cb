"""Attention between positions, parts and images: non-local blocks (AGW), parts and graph (DDAG)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.model.neck import BNNeck
from csvi.model.pooling import average_strips


class NonLocal(nn.Module):
    """Non-local block of AGW: each position adds a sum over all positions (Wang et al., CVPR 2018, dot product).

    z = x + BN(conv(y)), y = F g, F = theta^T phi / (h*w), without a softmax. F is never formed, as F g is
    theta^T (phi g^T) / (h*w): time and memory grow with the number of positions, not with its square. At first it is
    the identity, for the weights of the batch norm are 0.

    Args:
        channels: C.
        inner: channels of theta, phi and g; the public code has one, whatever C is.
    """

    def __init__(self, channels: int, inner: int = 1):
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = residual(inner, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        theta, phi, g = (project(features).flatten(2) for project in (self.theta, self.phi, self.g))  # (B, inner, h*w)
        y = g @ (phi / phi.shape[2]).mT @ theta
        return features + self.out(y.unflatten(2, features.shape[2:]))


def residual(inner: int, channels: int, stride: int = 1) -> nn.Sequential:
    """A convolution to what a block adds to its input, with a batch norm that makes it 0 at first.

    (B, inner, h, w) to (B, channels, h/stride, w/stride).
    """
    norm = nn.BatchNorm2d(channels)
    nn.init.zeros_(norm.weight)
    return nn.Sequential(nn.Conv2d(inner, channels, 1, stride), norm)


class PartAttention(nn.Module):
    """Intra-modality weighted-part aggregation (IWPA) of DDAG (Ye et al., ECCV 2020), as its public code computes it.

    Parts, averages of strips, attend to each other, u_p . v_q without scaling; a learned convex combination of them is
    added to the embedding, and a second neck follows.

    Args:
        channels: C.
        parts: P.
    """

    def __init__(self, channels: int, parts: int = 3):
        super().__init__()
        self.parts = parts
        self.u, self.v, self.z = (nn.Linear(channels, channels) for _ in range(3))
        self.gate = nn.Parameter(torch.zeros(parts))  # equal shares at first
        self.norm = BNNeck(channels)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Compute the part-attended embedding.

        Args:
            features: (B, C, h, w).
            embedding: the pooled feature behind the first neck, (B, C).

        Returns:
            (B, C), for the same classifier.
        """
        parts = average_strips(features, self.parts)  # (B, P, C)
        attention = (self.u(parts) @ self.v(parts).mT).softmax(2)  # (B, P, P)
        combined = self.gate.softmax(0) @ (attention @ self.z(parts))  # (B, C)
        return self.norm(combined + embedding)


class GraphAttentionLayer(nn.Module):
    """One head of graph attention (Veličković et al., ICLR 2018) between the images of an identity.

    h = x W, e_ij = LeakyReLU(a1 . h_i + a2 . h_j), and y_i is the sum of softmax_j(e_ij) h_j over the images of i's
    identity in both modalities, itself included.

    Args:
        channels, dim: of an image before and after.
        dropout: of the attention weights.
        slope: of the leaky ReLU.
    """

    def __init__(self, channels: int, dim: int, dropout: float = 0.2, slope: float = 0.2):
        super().__init__()
        self.project = nn.Linear(channels, dim, bias=False)  # W
        self.attention = nn.Parameter(torch.empty(1, 2 * dim))  # a1 and a2
        for weight in (self.project.weight, self.attention):
            nn.init.xavier_uniform_(weight, gain=math.sqrt(2))
        self.dropout = nn.Dropout(dropout)
        self.slope = slope

    def forward(self, features: Tensor, identity: Tensor) -> Tensor:
        """Features (B, C) of images with labels (B,) to (B, dim)."""
        h = self.project(features)
        of_i, of_j = (h @ self.attention.view(2, -1).mT).unbind(1)
        energy = F.leaky_relu(of_i[:, None] + of_j, self.slope)  # (B, B)
        other = identity[:, None] != identity
        return self.dropout(energy.masked_fill(other, -math.inf).softmax(1)) @ h


class GraphAttention(nn.Module):
    """Cross-modality graph structured attention (CGSA) of DDAG: scores from the images of an identity, for training.

    Several heads side by side and one layer on them, each with an ELU, as the public code computes it. Pairs are found
    by label; the normalised adjacency matrix of that code has no other effect.

    Args:
        channels: C.
        identities: L.
        heads: heads with C / heads dimensions each.
        dropout: of inputs and of attention weights.
    """

    def __init__(self, channels: int, identities: int, heads: int = 4, dropout: float = 0.2):
        super().__init__()
        dim = channels // heads
        self.heads = nn.ModuleList(GraphAttentionLayer(channels, dim, dropout) for _ in range(heads))
        self.classify = GraphAttentionLayer(heads * dim, identities, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, identity: Tensor) -> Tensor:
        """Pooled features (B, C) before the neck, of images with labels (B,), to scores (B, L) for a cross-entropy."""
        features = self.dropout(features)
        attended = torch.cat([F.elu(head(features, identity)) for head in self.heads], 1)
        return F.elu(self.classify(self.dropout(attended), identity))
