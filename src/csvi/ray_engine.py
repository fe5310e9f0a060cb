"""Ray Data as an engine for what is done one image at a time: embedding, masks, decoding (docs/scaling.md)."""

import contextlib
import dataclasses
import functools
import logging
import pickle
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from csvi.errors import CsviError, in_one_line
from csvi.plugins import imported
from csvi.signals import handled, terminate
from csvi.threads import limit_reading_threads

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class RayEngine:
    """Workers of Ray Data: processes on one or many machines, each of which opens the model once.

    Ray starts a worker that has died anew and gives its piece out again, as often as it takes. A piece may therefore be
    worked on twice; its result is yielded once.
    """

    address: str | None = None
    """Address of a cluster, as `ray.init` takes it; None: that of the environment variable RAY_ADDRESS, or a cluster
    that this machine is in, or else one of this machine alone, which is started and stopped again."""
    workers: int | None = None
    """Number of workers; None: as many as the machines there are have room for."""
    worker_cpus: int | None = None
    """Cores of a worker; None: its share of its machine's where it has a GPU, and else one."""
    worker_gpus: float | None = None
    """GPUs of a worker, as 0.5 for two on each; None: one where there are any."""

    def map(
        self, prepare: Callable[[], Callable[[Piece], Result]], pieces: Sequence[Piece], shared: Sequence[Path]
    ) -> Iterator[Result]:
        """Call a function of each piece of work in the workers; pieces wait while results are not taken.

        Args:
            prepare: gives the function; called once in each worker, where it opens what takes long to open.
            pieces: what the function is called of; they must pickle, and so must its results.
            shared: files and folders that all machines must have under the same path.

        Yields:
            Its results, in the order of the pieces.

        Raises:
            CsviError: Ray is not installed or cannot be reached, a machine lacks what is shared, or the function has
                raised one.
        """
        ray = imported("ray", "ray", "the engine ray")
        data = imported("ray.data", "ray", "the engine ray")
        if not pieces:
            return
        with self._connected(ray):
            workers, cpus, gpus = self._sizes(ray, len(pieces))
            work = data.from_items(
                [{"piece": pickle.dumps(piece)} for piece in pieces], override_num_blocks=len(pieces)
            )
            work = work.map_batches(
                _Worker,
                fn_constructor_args=(prepare, tuple(shared), cpus),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=workers),
                num_cpus=cpus,
                num_gpus=gpus,
            )
            work.context.execution_options.preserve_order = True
            work.context.enable_progress_bars = work.context.print_on_execution_start = False
            for row in work.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, CsviError):
                    raise result
                yield result

    @contextlib.contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        """Connect to the cluster, or start one, unless the program has done so."""
        if ray.is_initialized():
            yield
            return
        where = self.address or ""
        host, _, port = where.rpartition(":")
        init = functools.partial(ray.init, self.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            if port.isdigit() and "/" not in host:  # Ray would try again for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            with handled(terminate, signal.SIGTERM):  # behind which Ray's own is put away again
                try:
                    init()
                except RuntimeError:  # on a busy machine Ray does not always start within its 30 seconds
                    init()
        except Exception as error:  # Ray raises plain ones too
            raise CsviError(f"cannot connect to Ray {where}: {in_one_line(error)}") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()

    def _sizes(self, ray: Any, pieces: int) -> tuple[int, int, float]:
        """How many workers there are, and the cores and GPUs of each."""
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = self.worker_gpus
        if gpus is None:
            gpus = float(any(machine.get("GPU") for machine in machines))
        kind, size = ("GPU", gpus) if gpus else ("CPU", self.worker_cpus or 1)
        rooms = [int(machine.get(kind, 0) / size) for machine in machines]
        if not any(rooms) and self.workers is None:
            most = max((machine.get(kind, 0) for machine in machines), default=0)
            raise CsviError(f"no machine of Ray has room for a worker of {size:g} {kind}s: the largest has {most:g}")
        shares = [int(machine.get("CPU", 0) // room) for machine, room in zip(machines, rooms, strict=True) if room]
        workers = self.workers or max(1, sum(rooms))
        return min(workers, pieces), self.worker_cpus or max(1, min(shares, default=1)), gpus


class _Worker:
    """One worker: prepares when its first piece comes, and gives errors for users back as results."""

    def __init__(self, prepare: Callable[[], Callable[[Any], Any]], shared: Sequence[Path], cpus: int):
        self.prepare, self.shared, self.cpus = prepare, shared, cpus
        self.function: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        try:
            if self.function is None:
                limit_reading_threads(self.cpus)
                for path in self.shared:
                    if not path.exists():
                        name = socket.gethostname()
                        raise CsviError(
                            f"{path} is not there on {name}: all machines of Ray must have it, as a network disk"
                        )
                self.function = self.prepare()
            result = self.function(pickle.loads(batch["piece"][0]))
        except CsviError as error:
            result = CsviError(str(error))  # of the class itself: others need not pickle
        return {"result": [pickle.dumps(result)]}
