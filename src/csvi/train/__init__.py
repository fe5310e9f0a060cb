"""The training loop, its optimiser, schedule and checkpoints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csvi.train.loop import train

__all__ = ["train"]


def __getattr__(name: str) -> Any:  # the loop imports what evaluations and other users of this folder do not need
    if name == "train":
        from csvi.train.loop import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
