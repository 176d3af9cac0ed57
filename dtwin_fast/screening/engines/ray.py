"""Shards on the nodes of a Ray cluster, or of one that is started on this machine alone.

Ray places actors and tells when one dies. Numbers of shards are all that goes to an actor and
comes back: actors read people and write results themselves, in folders that all nodes see.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import socket
import tempfile
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DTwinInputError, MissingExtraError
from ..worker import AHEAD, Job, Resources, Worker, cores

IN_FLIGHT = AHEAD + 2
"""Shards that an actor has at most: one is written, one computed, and others are read ahead."""
LOSSES = 3
"""A shard with which so many actors died is not tried again."""
STORE_BYTES = 80 * 2**20
"""Of the store of objects, about the least that Ray takes: nothing large goes through it."""
CONNECT_S = 10.0
LOOPBACK = "127.0.0.1"
TOKEN = secrets.token_hex(32)
"""Of clusters that this process starts: Ray reads it once."""


def run(job: Job, opened: Worker, shards: Sequence[int], resources: Resources) -> Iterator[int]:
    """Do shards; see ``engines.Engine``.

    Raises:
        MissingExtraError: ray is not installed.
        DTwinInputError: a cluster that cannot be reached or is too small (code ``argument``),
            and what an actor raised.
        ChildProcessError: actors died again and again.
        Exception: what an actor raised.
    """
    nprocs = min(resources.nprocs, len(shards))
    with connected(resources.ray_address, nprocs) as ray:
        yield from _run(ray, job, shards, nprocs)


@contextlib.contextmanager
def connected(address: str | None = None, nprocs: int = 1) -> Iterator[Any]:
    """The module ray, connected to a cluster; a connection that there is already is used.

    Args:
        address: of a cluster; None starts one on this machine, which nobody else can reach.
        nprocs: actors that the machine must have room for.

    Raises:
        MissingExtraError: ray is not installed.
        DTwinInputError: the cluster cannot be reached (code ``argument``).
    """
    with contextlib.ExitStack() as held:
        if address is None:
            held.enter_context(_environment())
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray", "The engine ray") from error
        if not ray.is_initialized():
            held.callback(ray.shutdown)
            with _sigterm_as_it_was():
                if address is None:
                    _start(ray, held, nprocs)
                else:
                    _connect(ray, address)
        yield ray


def _start(ray: Any, held: contextlib.ExitStack, nprocs: int) -> None:
    """A cluster of this machine alone, whose files are gone when it is."""
    if (host := ray.util.get_node_ip_address()) != LOOPBACK:
        raise DTwinInputError(
            "argument",
            "Ray was imported before, and would listen to other machines",
            field="engine",
            wanted=f"a cluster at {LOOPBACK}",
            got=host,
            fix="Leave the import to the engine, or call ray.init yourself",
        )
    # Not in TMPDIR: paths of sockets must be short. Processes may still write as they end.
    folder = tempfile.TemporaryDirectory("", "dtwin-ray-", "/tmp", ignore_cleanup_errors=True)
    held.enter_context(folder)
    held.callback(ray.shutdown)
    ray.init(
        address="local",
        num_cpus=max(nprocs, len(cores())),
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=STORE_BYTES,
        _node_ip_address=LOOPBACK,
        _temp_dir=f"{folder.name}/r",  # Ray opens its own folder to everybody
    )


def _connect(ray: Any, address: str) -> None:
    if os.environ.get("RAY_AUTH_MODE") != "token":
        warnings.warn(
            f"whoever can reach the Ray cluster at {address} can run code on it, with your rights "
            "and on your data: keep its ports closed to others, and start it and this command "
            "with RAY_AUTH_MODE=token",
            RuntimeWarning,
            stacklevel=2,
        )
    try:
        if address != "auto":
            # Ray waits for minutes for a cluster that is not there.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, OverflowError, RuntimeError, ray.exceptions.RayError) as error:
        raise DTwinInputError(
            "argument",
            "this Ray cluster cannot be reached",
            field="--ray-address",
            wanted="HOST:PORT of its head node, or auto",
            got=f"{address[:80]!r}, {type(error).__name__}",
            fix="Look whether it runs (ray status), with the same versions of Ray and Python, and "
            "whether this command has its token",
        ) from error


def _run(ray: Any, job: Job, shards: Sequence[int], nprocs: int) -> Iterator[int]:
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_gpu = job.manifest.config.backend == "cuda"
    n_cores, places = _places(ray, nprocs, on_gpu)
    remote = ray.remote(
        num_cpus=n_cores, num_gpus=int(on_gpu), max_concurrency=IN_FLIGHT, max_restarts=0
    )(Actor)

    def start(place: Place) -> Any:
        here = NodeAffinitySchedulingStrategy(place.node, soft=False)
        return remote.options(scheduling_strategy=here).remote(job, str(Path.cwd()), place, on_gpu)

    waiting = deque(shards)
    losses: Counter[int] = Counter()
    calls: dict[Any, tuple[Any, int]] = {}
    actors: dict[Any, Place] = {}
    try:
        actors.update((start(place), place) for place in places)
        while waiting or calls:
            given = Counter(actor for actor, _ in calls.values())
            while waiting:
                idlest = min(actors, key=given.__getitem__)
                if given[idlest] == IN_FLIGHT:
                    break
                given[idlest] += 1
                shard = waiting.popleft()
                calls[idlest.do.remote(shard)] = idlest, shard
            (ready,), _ = ray.wait(list(calls))
            actor, shard = calls.pop(ready)
            try:
                ray.get(ready)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                if (place := actors.pop(actor, None)) is not None:
                    ray.kill(actor)
                    if place.node in _alive(ray):
                        actors[start(place)] = place
                if not job.folder.done(shard).exists():
                    losses[shard] += 1
                    if losses[shard] == LOSSES or not actors:
                        raise _died(shard, losses[shard], error) from error
                    waiting.appendleft(shard)
                    continue
            yield shard
    finally:
        for actor in actors:
            ray.kill(actor)


class Place(NamedTuple):
    """Where an actor runs.

    Attributes:
        node: id of a node.
        i, n: it has the i-th of n shares of the node's cores.
    """

    node: str
    i: int
    n: int


class Actor:
    """A process of a cluster that does shards, some at the same time.

    Args:
        job: the run.
        folder: in which its relative paths begin.
        place: where it runs.
        on_gpu: has a GPU for itself; else it has none.
    """

    def __init__(self, job: Job, folder: str, place: Place, on_gpu: bool) -> None:
        if not on_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._given = _Given()
        arguments = (job, folder, place)
        threading.Thread(target=self._work, args=arguments, daemon=True).start()

    def do(self, shard: int) -> None:
        """Do a shard; it is on the disk when this returns.

        Raises:
            Exception: what ended the work.
        """
        promise: Future[None] = Future()
        self._given.queue.put((shard, promise))
        promise.result()

    def _work(self, job: Job, folder: str, place: Place) -> None:
        given = self._given
        try:
            # Ray counts cores, and leaves all of them to everybody.
            os.sched_setaffinity(0, cores()[place.i :: place.n] or cores())
            os.chdir(folder)
            worker = job.open()
            while True:
                for shard in worker.run(given):
                    given.begun.pop(shard).set_result(None)
        except Exception as error:  # noqa: BLE001 - do raises it
            for promise in given.begun.values():
                promise.set_exception(error)
            while True:
                given.queue.get()[1].set_exception(error)


class _Given(Iterator[int]):
    """Shards that were given: waits for one if none is begun, else it ends, and may go on later."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[tuple[int, Future[None]]] = queue.SimpleQueue()
        self.begun: dict[int, Future[None]] = {}

    def __next__(self) -> int:
        try:
            shard, promise = self.queue.get(block=not self.begun)
        except queue.Empty:
            raise StopIteration from None
        self.begun[shard] = promise
        return shard


def _places(ray: Any, nprocs: int, on_gpu: bool) -> tuple[int, list[Place]]:
    """Cores of each actor, as many as there can be, and where actors run."""
    nodes = _alive(ray)

    def shares(n_cores: int) -> dict[str, int]:
        return {
            node: min(
                int(has.get("CPU", 0)) // n_cores, int(has.get("GPU", 0)) if on_gpu else nprocs
            )
            for node, has in nodes.items()
        }

    most = int(max(has.get("CPU", 0) for has in nodes.values()))
    n_cores = next((n for n in range(most, 0, -1) if sum(shares(n).values()) >= nprocs), None)
    if n_cores is None:
        raise DTwinInputError(
            "argument",
            "the cluster has no room for so many processes",
            field="--nprocs",
            wanted=f"at most {sum(shares(1).values())}",
            got=str(nprocs),
            fix=f"Take fewer: each needs a {'GPU and a core' if on_gpu else 'core'}",
        )
    places = [Place(node, i, n) for node, n in shares(n_cores).items() for i in range(n)]
    return n_cores, sorted(places, key=lambda place: place.i)[:nprocs]


def _alive(ray: Any) -> dict[str, dict[str, float]]:
    """Node -> what it has."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _died(shard: int, losses: int, error: Exception) -> ChildProcessError:
    return ChildProcessError(
        f"{losses} actors died while they did shard {shard} ({type(error).__name__}); what is done "
        "is kept, and the same command with --resume goes on (the cause is often too little "
        "memory: fewer --nprocs, or --mem-mb)"
    )


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What makes a cluster of one machine private; Ray's processes inherit it."""
    private = {
        "RAY_USAGE_STATS_ENABLED": "0",  # no network calls
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray takes no loopback address
        # Other users of the machine reach its loopback too.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN", TOKEN),
    }
    before = {name: os.environ.get(name) for name in private}
    os.environ.update(private)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _sigterm_as_it_was() -> Iterator[None]:
    """Ray ends the process at once; the command first ends its work."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
