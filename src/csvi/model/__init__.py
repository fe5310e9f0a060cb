"""The network of the paper, its auxiliaries and its losses. Knows no dataset."""

from csvi.model.network import TrainingNetwork, VIReIDNet, build_network

__all__ = ["TrainingNetwork", "VIReIDNet", "build_network"]
