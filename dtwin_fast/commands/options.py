"""What several commands need: checked numbers and an output folder that can be written."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DTwinInputError
from .progress import Progress

if TYPE_CHECKING:
    from ..training import TrainStep
    from ..training.recipes import Config

MAX_SEED = 2**63 - 1


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: integers from ``least`` to ``most``."""
    wanted = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"an integer {wanted} is wanted, not {text[:40]!r}")
        return value

    return parse


def names(text: str) -> list[str]:
    """An argparse type: names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_seed(parser: argparse.ArgumentParser, default: int | None = 0) -> None:
    """Declare ``--seed``; no default means that of the training settings."""
    parser.add_argument(
        "--seed",
        type=integer(0, MAX_SEED),
        default=default,
        metavar="N",
        help=f"same seed, same result (default {'as in --config' if default is None else default})",
    )


def add_training(parser: argparse.ArgumentParser, seed: int | None = 0) -> None:
    """Declare ``--steps`` and ``--seed``, which :func:`train_config` reads."""
    parser.add_argument(
        "--steps",
        type=integer(1),
        metavar="N",
        help="optimiser steps that fit people, other stages in proportion (fewer: faster, worse)",
    )
    add_seed(parser, seed)


def train_config(args: argparse.Namespace, config: Config) -> Config:
    """The settings with what ``--steps`` and ``--seed`` ask for.

    Raises:
        DTwinInputError: steps for a recipe that counts epochs (code ``argument``).
    """
    from ..training.config import PaperConfig, StagedConfig

    if args.seed is not None:
        config = replace(config, seed=args.seed)
    if args.steps is None:
        return config
    if isinstance(config, PaperConfig):
        raise DTwinInputError(
            "argument",
            "the paper's recipe counts epochs, not steps",
            field="--steps",
            fix="Leave it out, and set max_epochs in a settings file",
        )
    if isinstance(config, StagedConfig):
        share = args.steps / config.n_steps
        config = replace(config, group_steps=max(1, round(share * config.group_steps)))
    return replace(config, n_steps=args.steps)


def show_step(progress: Progress, step: TrainStep) -> None:
    """Report one optimiser step with its losses."""
    note = f"action {step.action_loss:.3f}, BOLD {step.bold_loss:.3f}"
    progress(step.step, step.n_steps, note)


def check_writable(file: Path) -> None:
    """Find out before minutes of work, not after.

    Raises:
        DTwinInputError: no file can be written there (code ``out_unwritable``).
    """
    folder = file.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or file.is_dir():
        raise DTwinInputError(
            "out_unwritable",
            "this file cannot be written",
            field=str(file),
            wanted="a file in a folder that is there",
            got="no such folder, no permission, or a folder",
            fix="Name a file that you may write",
        )


@contextlib.contextmanager
def output_folder(folder: Path, *, may_hold: str | None = None) -> Iterator[None]:
    """Make the folder before the work begins, and take it away again if nothing came of it.

    Args:
        folder: a new or empty folder.
        may_hold: a file that marks a folder of an earlier run, which may be used again.

    Raises:
        DTwinInputError: there is something else in the folder (code ``out_not_empty``), or
            it cannot be made or written (``out_unwritable``).
    """
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write into {folder}")
        occupied = any(folder.iterdir())
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise DTwinInputError(
            "out_unwritable",
            "this cannot be used as output folder",
            field=str(folder),
            wanted="a new or empty folder",
            got=getattr(error, "strerror", None) or str(error),
            fix="Name a folder that you may write",
        ) from error
    if occupied and not (may_hold and (folder / may_hold).is_file()):
        raise DTwinInputError(
            "out_not_empty",
            "there is something in the output folder, and nothing is overwritten",
            field=str(folder),
            wanted="a new or empty folder",
            got="files",
            fix="Name another folder, or remove this one",
        )
    try:
        yield
    except BaseException:
        if is_new:
            # Fails, rightly, when there is something in it.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
