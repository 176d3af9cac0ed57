"""The console script ``dtwin``."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from .commands import (
    bench,
    cohort,
    demo,
    doctor,
    evaluate,
    export,
    intervene,
    predict,
    report,
    screen,
    serve,
    simulate,
    study,
    train,
)
from .errors import DTwinError, DTwinInputError, VerificationError
from .provenance import package_version

COMMANDS = {
    "demo": (demo, "simulate people, train and score a twin, intervene, write a report"),
    "simulate": (simulate, "write a simulated cohort"),
    "cohort": (cohort, "read a cohort of real people"),
    "train": (train, "train a twin on a cohort folder"),
    "predict": (predict, "predict choices, reaction times and BOLD from connectomes"),
    "screen": (screen, "predict a cohort of any size in shards, which can be stopped and shared"),
    "evaluate": (evaluate, "score a twin beside floors, ceilings and nulls"),
    "intervene": (intervene, "move a target of people in silico, with controls"),
    "export": (export, "write a twin as verified ONNX files for other runtimes"),
    "serve": (serve, "answer requests of other programs, by REST and gRPC"),
    "report": (report, "write pages of results, one of the cohort and one of each person"),
    "study": (study, "results on data sets of real people"),
    "bench": (bench, "time the engine beside torch, JAX and ONNX Runtime"),
    "doctor": (doctor, "say what was built and what this machine offers"),
}

EXIT_CODES = """exit codes:
  0 done   1 internal error   2 usage   3 some subjects were rejected
  4 input unreadable   130, 143 stopped by a signal"""

EXIT_INTERNAL, EXIT_USAGE, EXIT_UNREADABLE = 1, 2, 4

USAGE_CODES = {
    "out_not_empty",
    "out_unwritable",
    "task",
    "backend",
    "device",
    "n_threads",
    "simulation",
    "cohort_options",
    "predictor",
    "split",
    "argument",
    "target",
    "edit",
    "filters",
    "constraint",
    "region",
    "too_few",
    "train_config",
    "checkpoint",
    "locked",
    "other_model",
    "other_version",
    "other_config",
    "input_changed",
}
"""Input errors that are the command line's, not a file's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A path may hold characters that the terminal's encoding has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        args = build_parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except DTwinInputError as error:
        return _fail(error, EXIT_USAGE if error.code in USAGE_CODES else EXIT_UNREADABLE)
    except VerificationError as error:
        return _fail(error, EXIT_INTERNAL)
    except DTwinError as error:
        return _fail(error, EXIT_USAGE)
    except BrokenPipeError:
        # The reader of stdout is gone; the interpreter must not flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERNAL
    except (OSError, FloatingPointError) as error:
        return _fail(error, EXIT_INTERNAL)
    except MemoryError:
        return _fail("out of memory; take fewer people or regions at once", EXIT_INTERNAL)
    except KeyboardInterrupt:
        return _fail("stopped", 128 + signal.SIGINT)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="dtwin",
        description="Digital twin brains: from connectomes to choices, reaction times and BOLD.\n"
        "In silico, not clinical.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dtwin_fast {package_version()}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add(sub)
        sub.set_defaults(run=module.run)
    return parser


def _fail(problem: object, code: int) -> int:
    print(f"dtwin: {problem}", file=sys.stderr)
    return code


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    # Unwinding, not dying at once, lets open temporary files be removed.
    raise SystemExit(128 + signum)
