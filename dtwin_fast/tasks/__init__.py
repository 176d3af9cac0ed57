"""The tasks a twin can do. A new one is a file like ``faces.py`` and a line in ``TASKS``."""

from __future__ import annotations

from . import faces, stroop
from .schedule import Schedule
from .task import Task

TASKS: dict[str, Task] = {"faces": faces.TASK, "stroop": stroop.TASK}

__all__ = ["TASKS", "Schedule", "Task"]
