"""Runs of the command line that are killed, and whose files cannot be written."""

from .launcher import Call, Ended, Launcher, Running, build, problems, processes

__all__ = ["Call", "Ended", "Launcher", "Running", "build", "problems", "processes"]
