"""The page at ``/``, where a person drops a connectome file, and the queue behind it."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import jinja2
import msgspec

from ..errors import DTwinInputError
from ..interventions import find_target
from ..interventions.gradients import check_target
from ..prediction_files import NOTICE
from ..provenance import package_version
from ..twin import Twin
from .beside import beside
from .person import ENDINGS, TARGETS, Wanted, look_at
from .person_results import as_report, as_results, as_sections
from .refusals import queue_full
from .settings import Settings

QUEUE = 2
"""People of pages that wait or run: a search takes seconds, and an end waits for them."""
TARGET_WORDS = {"speed": "faster answers (speed up)", "amygdala": "calmer amygdalae (faces down)"}


class Page:
    """What a person sees, and what is made of their file.

    Args:
        twin: the model.
        settings: of the server: whether it needs a token, and how large a file may be.

    Attributes:
        html: the page, which is the same for everybody and says nothing of the twin but its
            targets.
        headers: of its answer.
    """

    def __init__(self, twin: Twin, settings: Settings) -> None:
        self._twin = twin
        self._thread = ThreadPoolExecutor(1, "page")
        self._open = 0
        report = files("dtwin_fast.report") / "templates"
        own = files("dtwin_fast.serve") / "templates"
        style = (report / "style.css").read_text("utf-8") + (own / "page.css").read_text("utf-8")
        script = (own / "page.js").read_text("utf-8")
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self.html = environment.from_string((own / "page.html").read_text("utf-8")).render(
            style=style,
            script=script,
            notice=NOTICE,
            endings=ENDINGS,
            targets={name: TARGET_WORDS[name] for name in TARGETS if _has(twin, name)},
            needs_token=settings.tokens is not None,
            most_mib=settings.body_mib,
            version=package_version(),
        )
        self.headers = {
            "Content-Security-Policy": f"default-src 'none'; style-src {_hash(style)}; "
            f"script-src {_hash(script)}; connect-src 'self'; img-src data:; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }

    async def look(self, body: bytes, wanted: Wanted) -> bytes:
        """What is said of the person of a file, as JSON: results, sections and a report.

        Args:
            body: the file.
            wanted: what to do with it.

        Raises:
            DTwinInputError: see :func:`look_at`; too many wait (code ``queue_full``).
        """
        if self._open >= QUEUE:
            raise queue_full()
        self._open += 1
        try:
            return await beside(self._thread, self._look, body, wanted)
        finally:
            self._open -= 1

    def _look(self, body: bytes, wanted: Wanted) -> bytes:
        person = look_at(self._twin, body, wanted)
        sections = as_sections(person)
        return msgspec.json.encode(
            {
                "results": as_results(person),
                "sections": sections,
                "report": as_report(person, sections),
            }
        )


def _has(twin: Twin, target: str) -> bool:
    try:
        check_target(twin, find_target(target))
    except DTwinInputError:
        return False
    return True


def _hash(text: str) -> str:
    """By which a browser knows what it may run."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
