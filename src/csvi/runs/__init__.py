"""Runs: the folder of one on disk, a run opened, evaluations, and statistics over several."""

from csvi.runs.evaluation import Evaluation, evaluate_features, evaluate_run
from csvi.runs.network_files import load_net
from csvi.runs.run import Options, Run
from csvi.runs.settings import load_config, save_config

__all__ = [
    "Evaluation",
    "Options",
    "Run",
    "evaluate_features",
    "evaluate_run",
    "load_config",
    "load_net",
    "save_config",
]
