"""What runs model files of others on the CPU: onnxruntime and LiteRT, neither of which is installed with csvi."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csvi.errors import CsviError, in_one_line
from csvi.plugins import imported


class Port(NamedTuple):
    """An input or output of a graph."""

    name: str
    shape: tuple[int | None, ...]
    """None where any size will do."""
    type: str
    """`float32`, as NumPy calls it; a runtime's own word for what NumPy does not know."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape may pass."""
        return len(shape) == len(self.shape) and all(
            own in (None, wanted) for own, wanted in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} ({' × '.join('?' if size is None else str(size) for size in self.shape)})"


class Graph:
    """A model that is ready to run."""

    inputs: Sequence[Port]
    outputs: Sequence[Port]

    def run(self, values: np.ndarray, output: int) -> np.ndarray:
        """Compute the output of this number for its one input."""
        raise NotImplementedError


class OnnxGraph(Graph):
    """A graph in onnxruntime."""

    def __init__(self, file: Path):
        runtime = imported("onnxruntime", "onnx", file.name)
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.inputs = [self._port(each) for each in self._session.get_inputs()]
        self.outputs = [self._port(each) for each in self._session.get_outputs()]

    @staticmethod
    def _port(node: Any) -> Port:
        shape = tuple(size if isinstance(size, int) else None for size in node.shape)
        name = node.type.removeprefix("tensor(").removesuffix(")")
        return Port(node.name, shape, {"float": "float32", "float16": "float16"}.get(name, name))

    def run(self, values: np.ndarray, output: int) -> np.ndarray:
        """Give a network its one input; returns the output of this number."""
        (answer,) = self._session.run([self.outputs[output].name], {self.inputs[0].name: values})
        return np.asarray(answer)


class TfLiteGraph(Graph):
    """A graph in LiteRT, formerly TensorFlow Lite."""

    def __init__(self, file: Path):
        runtime = imported("ai_edge_litert.interpreter", "tflite", file.name)
        self._interpreter = runtime.Interpreter(model_path=str(file))
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.inputs = [self._port(each) for each in self._inputs]
        self.outputs = [self._port(each) for each in self._outputs]
        self._shape: tuple[int, ...] | None = None

    @staticmethod
    def _port(details: dict[str, Any]) -> Port:
        shape = tuple(None if size < 0 else int(size) for size in details["shape_signature"])
        return Port(details["name"], shape, np.dtype(details["dtype"]).name)

    def run(self, values: np.ndarray, output: int) -> np.ndarray:
        """Give a network its one input, whose shape may change; returns the output of this number."""
        if values.shape != self._shape:
            self._interpreter.resize_tensor_input(self._inputs[0]["index"], values.shape)
            self._interpreter.allocate_tensors()
            self._shape = values.shape
        self._interpreter.set_tensor(self._inputs[0]["index"], values)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._outputs[output]["index"]))


GRAPHS: dict[str, type[OnnxGraph | TfLiteGraph]] = {".onnx": OnnxGraph, ".tflite": TfLiteGraph}
"""Suffix of a file → what runs it."""


def open_graph(file: Path) -> Graph:
    """Load a model file; raises `CsviError` if it is damaged or of another kind, or what runs it is not installed."""
    kind = GRAPHS.get(file.suffix.lower())
    if kind is None:
        raise CsviError(f"the model file {file} is of no kind that is run: it must end in {' or '.join(GRAPHS)}")
    try:
        return kind(file)
    except CsviError:
        raise
    except Exception as error:  # each runtime has exceptions of its own
        raise CsviError(f"{file} is damaged or no {file.suffix} model: {in_one_line(error)}") from error
