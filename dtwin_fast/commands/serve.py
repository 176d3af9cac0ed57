"""``dtwin serve MODEL``: a twin behind the Open Inference Protocol, by REST and gRPC."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..prediction_files import NOTICE
from ..twin_files import load
from .options import integer


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder")
    where = parser.add_argument_group("where, and for whom")
    where.add_argument(
        "--host",
        type=lambda text: "127.0.0.1" if text == "localhost" else text,
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default 127.0.0.1); others need --tokens",
    )
    _number(where, "--port", 8000, "of HTTP", 1, 65535)
    _number(where, "--grpc-port", 8001, "of gRPC", 1, 65535)
    where.add_argument(
        "--tokens", type=Path, metavar="FILE", help="who may ask, as TOML (docs/serving.md)"
    )
    how = parser.add_argument_group("batches and limits")
    _number(how, "--batch-size", 64, "people that are run together", 1, 4096)
    how.add_argument(
        "--batch-wait-ms",
        type=_milliseconds,
        default=2.0,
        metavar="MS",
        help="how long a request waits for others to be run with (default 2)",
    )
    _number(how, "--queue", 1024, "people that may wait, and people of one request", 1, 10**6)
    _number(how, "--body-mib", 64, "largest body of a request, in MiB", 1, 1024)
    _number(how, "--header-s", 10, "seconds for the headers of a request", 1, 3600)
    _number(how, "--body-s", 30, "seconds for the body of a request", 1, 3600)
    _number(how, "--request-s", 30, "seconds that a request waits for its turn", 1, 3600)
    _number(how, "--drain-s", 25, "seconds after SIGTERM in which the server has ended", 4, 3600)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then 0; 1 if something was given up."""
    from ..serve import Settings, serve

    options = {
        name: getattr(args, name)
        for name in (
            *("host", "port", "grpc_port", "tokens", "batch_size", "batch_wait_ms", "queue"),
            *("body_mib", "header_s", "body_s", "request_s", "drain_s"),
        )
    }
    settings = Settings(**options)
    twin = load(args.model)

    def started() -> None:
        host = settings.url_host
        print(
            f"{twin.spec.name}: http://{host}:{args.port}, gRPC {host}:{args.grpc_port}; {NOTICE}",
            file=sys.stderr,
            flush=True,
        )

    ended = serve(twin, settings, started)
    sys.stderr.flush()
    # Not return: threads of the server would wait for clients that hold half a request.
    os._exit(0 if ended else 1)


def _number(group: argparse._ArgumentGroup, name: str, default: int, what: str, least: int,
            most: int) -> None:  # fmt: skip
    group.add_argument(
        name,
        type=integer(least, most),
        default=default,
        metavar="N",
        help=f"{what} (default {default})",
    )


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"a number from 0 to 10000 is wanted, not {text[:40]!r}")
    return value
