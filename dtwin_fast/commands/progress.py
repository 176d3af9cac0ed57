"""Progress with rate and ETA on stderr, so that stdout stays for results."""

from __future__ import annotations

import importlib.util
import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


LOG_EVERY_S = 10.0


class Progress:
    """A tqdm bar that is told (done, total); without tqdm it says once how to get one.

    Enter it when the work begins: rate and ETA count from there.
    """

    def __init__(self, label: str, unit: str) -> None:
        self._label = label
        self._unit = unit
        self._bar: tqdm[None] | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that ``done`` of ``total`` units are done."""
        if self._bar is None:
            return
        self._bar.total = total
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Progress:
        if importlib.util.find_spec("tqdm") is None:
            print(
                f"{self._label} ... (pip install 'dtwin_fast[cli]' shows progress)",
                file=sys.stderr,
            )
            return self
        from tqdm import tqdm

        # A log gets a line now and then, a terminal a bar that moves.
        every_s = 0.2 if sys.stderr.isatty() else LOG_EVERY_S
        self._bar = tqdm(desc=self._label, unit=f" {self._unit}", mininterval=every_s)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
