"""A process that has imported the command line and forks it, run by run, as ``launcher`` asks."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import sys

IMPORTED = (
    "dtwin_fast.cli",
    "dtwin_fast.screening",
    "dtwin_fast.screening.engines.local",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "zarr.codecs",
    "zarr.storage",
    "threadpoolctl",
    "tqdm",
)
"""What a run imports. Nothing is called, so no thread is running."""


def main() -> None:
    """Answer lines of JSON: "start" forks a run, "wait" waits until it has ended."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitpid(request["wait"], 0)[1]
        elif (answer := os.fork()) == 0:
            _become(request)
        else:
            # The run does the same: whoever comes first, its group is there when it is answered.
            os.setpgid(answer, answer)
        print(answer, flush=True)


def _become(request: dict[str, object]) -> None:
    """Be ``dtwin``, in a process group of its own."""
    from dtwin_fast.cli import main as dtwin

    os.setpgid(0, 0)
    # As many core dumps as may be: a run must forbid them itself.
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    for name, fd in (("/dev/null", 0), (request["stdout"], 1), (request["stderr"], 2)):
        os.dup2(os.open(str(name), os.O_RDWR | os.O_CREAT, 0o666), fd)
    os.environ.update(request["env"])  # type: ignore[call-overload]
    ctypes.CDLL(None).faults_arm()
    sys.argv = ["dtwin", *request["start"]]  # type: ignore[misc]
    code = 1
    try:
        code = dtwin()
    except SystemExit as stop:  # of a signal
        code = int(stop.code or 0)
    finally:
        # To take down all that was imported would take longer than the run.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
