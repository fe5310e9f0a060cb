"""TorchScript, and what takes its place in PyTorch: an exported program, .pt2."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from csvi.export.graph import Embed, Graph, StreamChoice

FACTS = "csvi.json"
"""Name of the file, within the file, that says what it is."""


class Entry(nn.Module):
    """A traced graph that takes the modality as a number."""

    def __init__(self, traced: nn.Module):
        super().__init__()
        self.traced = traced

    def forward(self, image: Tensor, modality: int) -> Tensor:
        """Embed images of one modality, 0 visible or 1 infrared."""
        return self.traced(image, torch.tensor(modality, device=image.device))


def write_torchscript(graph: Graph, facts: Mapping[str, object], file: Path) -> Embed:
    """Write the graph: `forward(image: (B, H, W, 3) uint8, modality: int)`; returns what it computes.

    csvi loads no such file, which may hold any code.
    """
    for name, part in list(graph.named_modules()):
        if isinstance(part, StreamChoice):  # of which tracing would keep one stream alone
            graph.set_submodule(name, cast(nn.Module, torch.jit.script(part)))
    with torch.no_grad():
        traced = torch.jit.trace(graph, graph.example, check_trace=False)  # csvi compares itself
    script = cast(torch.jit.ScriptModule, torch.jit.script(Entry(traced)))
    torch.jit.save(script, str(file), _extra_files={FACTS: json.dumps(facts)})

    def embed(images: np.ndarray, modality: int) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(script(torch.from_numpy(images), int(modality)))

    return embed


def write_program(graph: Graph, facts: Mapping[str, object], file: Path) -> Embed:
    """Write the graph as an exported program; returns what it computes.

    Its module takes images (B, H, W, 3) uint8 and the modality () int64.
    """
    program = torch.export.export(graph, graph.example, dynamic_shapes=Graph.any_batch())
    with file.open("wb") as opened:
        torch.export.save(program, opened, extra_files={FACTS: json.dumps(facts)})
    module = program.module()

    def embed(images: np.ndarray, modality: int) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(images), torch.tensor(int(modality))))

    return embed
