"""Vision transformers: that of PMT; by name also any network of timm, see `csvi.model.timm_trunk`."""

import math
import re
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from csvi.errors import CsviError
from csvi.model.timm_trunk import TimmBackbone, load_all
from csvi.model.trunk import Stage, Trunk

SIZES = {"vit_base": (768, 12), "vit_small": (384, 6), "vit_tiny": (192, 3)}
"""Name → dimensions of a token, and heads."""

TORCHVISION = {
    r"class_token": "cls_token",
    r"conv_proj\.": "patch_embed.proj.",
    r"encoder\.pos_embedding": "pos_embed",
    r"encoder\.ln\.": "norm.",
    r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.": r"blocks.\1.norm\2.",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_": r"blocks.\1.attn.qkv.",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.": r"blocks.\1.attn.proj.",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.": r"blocks.\1.mlp.fc1.",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.": r"blocks.\1.mlp.fc2.",
}
"""What names begin with in torchvision's vision transformers → in timm's."""


def is_transformer(name: str) -> bool:
    """Whether a backbone is one of `build_vit`; the others are `csvi.model.trunk.build_trunk`'s."""
    return name in SIZES or name.startswith("timm:")


def transformer_trunk(name: str, height: int, width: int) -> Trunk:
    """A network of `build_vit` as a trunk of one stage, `vit`, which gives a feature (B, D); raises as that does."""
    vit = build_vit(name, height, width)
    return Trunk([Stage({"vit": vit}, vit.channels, vit.stride)], in_order=False)


def build_vit(name: str, height: int, width: int) -> "VisionTransformer | TimmBackbone":
    """Build a network from images to one feature each, with random weights.

    Either has `channels`, the length D of a feature, `forward` from images (B, 3, H, W) to features (B, D),
    `feature_map`, and `load_pretrained`.

    Args:
        name: `vit_base`, `vit_small` or `vit_tiny` for PMT's; `timm:NAME` for a network of timm.
        height, width: size of the images.

    Raises:
        CsviError: there is no such network, timm is missing, or the images do not fit.
    """
    if name.startswith("timm:"):
        return TimmBackbone(name.removeprefix("timm:"), height, width)
    if name not in SIZES:
        raise CsviError(f"unknown transformer {name!r}; choose one of {', '.join(SIZES)} or timm:NAME")
    dim, heads = SIZES[name]
    return VisionTransformer(height, width, dim, heads=heads)


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al., ICLR 2021) on overlapping patches: by default ViT-B/16 with stride 12, as in PMT.

    PMT is arXiv 2212.00226; details are those of its public code. Parameters have timm's names, so that its files fit.

    Args:
        height, width: size of the images that it has position embeddings for; for others these are resized.
        dim: D, dimensions of a token.
        depth: blocks.
        heads: heads of the attention.
        patch, stride: side of a patch, and pixels from one to the next; patches that do not fit are left out.
        dropout: after the position embeddings, the projection of the attention and both layers of the MLP.
        drop_path: stochastic depth of the last block, linear from 0 in the first.

    Attributes:
        channels: D.
        stride: as above.
        grid: rows and columns of patches, h and w.

    Raises:
        CsviError: no patch fits into the images.
    """

    def __init__(
        self,
        height: int,
        width: int,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch: int = 16,
        stride: int = 12,
        dropout: float = 0.03,
        drop_path: float = 0.1,
    ):
        super().__init__()
        if min(height, width) < patch:
            raise CsviError(f"images of {height}x{width} have no patch of {patch} by {patch} pixels: use larger ones")
        self.channels, self.stride = dim, stride
        self.grid = (height - patch) // stride + 1, (width - patch) // stride + 1
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, dim, patch, stride)))
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + math.prod(self.grid), dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(Block(dim, heads, dropout, drop_path * number / max(1, depth - 1)) for number in range(depth))
        )
        self.norm = nn.LayerNorm(dim)  # eps 1e-5 as in PMT, here and in the blocks; timm has 1e-6
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        """Features of images (B, 3, H, W), normalised: their class tokens, (B, D)."""
        tokens, _ = self.tokens(image)
        return self.norm(tokens[:, 0])

    def feature_map(self, image: Tensor) -> Tensor:
        """Patches of images (B, 3, H, W) as tokens before the last norm, which levels their lengths.

        Returns:
            (B, D, h', w'), cells of `stride` pixels that cover the image: those that no patch begins in are like the
            last ones, whose patches reach into them or come nearest.
        """
        tokens, (h, w) = self.tokens(image)
        patches = tokens[:, 1:].mT.unflatten(2, (h, w))
        below, right = (math.ceil(side / self.stride) for side in image.shape[2:])
        return F.pad(patches, (0, right - w, 0, below - h), mode="replicate")

    def tokens(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """All tokens before the last norm, (B, 1 + h*w, D): the class token, then patches row by row; with h and w."""
        patches = self.patch_embed(image)  # (B, D, h, w)
        grid = patches.shape[2], patches.shape[3]
        positions = self.pos_embed if grid == self.grid else resized_positions(self.pos_embed, self.grid, grid)
        patches = patches.flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], 1)
        return self.blocks(self.dropout(tokens + positions)), grid

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Fill all layers from a state dict with the names of timm (vit_base_patch16_224) or torchvision (vit_b_16).

        Its classifier is ignored. A square grid of position embeddings is resized, unless it has as many patches as
        this network: then it is taken for a grid of this shape.

        Raises:
            CsviError: a tensor is missing, is of another shape or has no place.
        """
        state = {_name_in_timm(name): tensor for name, tensor in state.items()}
        positions = state.get("pos_embed")
        if positions is not None and positions.dim() == 3 and positions.shape != self.pos_embed.shape:
            side = math.isqrt(max(0, positions.shape[1] - 1))
            if side and side**2 == positions.shape[1] - 1:
                state["pos_embed"] = resized_positions(positions, (side, side), self.grid)
        load_all(self, state, ("head.", "heads.", "pre_logits."))


def _name_in_timm(name: str) -> str:
    for theirs, timms in TORCHVISION.items():
        name, found = re.subn(f"^{theirs}", timms, name)
        if found:
            break
    return name


def resized_positions(positions: Tensor, grid: tuple[int, int], other: tuple[int, int]) -> Tensor:
    """Resize position embeddings bilinearly from one grid of patches to another, all but the class token's.

    (1, 1 + h*w, D) with (h, w) = `grid` to the same with (h, w) = `other`.
    """
    own, patches = positions[:, :1], positions[:, 1:].mT.unflatten(2, grid)
    return torch.cat([own, F.interpolate(patches, other, mode="bilinear").flatten(2).mT], 1)


class Block(nn.Module):
    """A pre-norm block of a vision transformer: attention, then an MLP four times as wide.

    Args:
        dim: D.
        heads: see `Attention`.
        dropout: see `VisionTransformer`.
        drop_path: probability with which an image skips the attention, and likewise the MLP.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, drop_path: float = 0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, dropout)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(dim, 4 * dim), act=nn.GELU(), drop1=nn.Dropout(dropout),
                fc2=nn.Linear(4 * dim, dim), drop2=nn.Dropout(dropout),
            )
        )  # fmt: skip
        self.drop_path = StochasticDepth(drop_path, "row")
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to the same."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class Attention(nn.Module):
    """Self-attention of so many heads, with dropout behind the projection alone.

    Args:
        dim: D, a multiple of the heads.
        heads, dropout: see `VisionTransformer`.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj, self.dropout = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to the same."""
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind()  # each (B, heads, N, d)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.dropout(self.proj(attended))
