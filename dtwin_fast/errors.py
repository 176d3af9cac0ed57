"""The errors a caller can meet: one type for bad input, one for a backend that cannot run."""

from __future__ import annotations


class DTwinError(Exception):
    """Base of every error raised on purpose by dtwin_fast."""


class DTwinInputError(DTwinError, ValueError):
    """Input that cannot be used: a file, an array, a model folder or an argument.

    Attributes:
        code: stable machine name of the problem, e.g. ``"asymmetric"``.
        what: one sentence saying what is wrong.
        subject: the subject concerned, or None when it is the whole input.
        field: the file, array or argument concerned.
        wanted, got: what was expected and what was found, as text (may be empty).
        fix: the way out, as an instruction.
    """

    def __init__(
        self,
        code: str,
        what: str,
        *,
        field: str,
        fix: str,
        subject: str | None = None,
        wanted: str = "",
        got: str = "",
    ) -> None:
        self.code = code
        self.what = what
        self.subject = subject
        self.field = field
        self.wanted = wanted
        self.got = got
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.field}, subject {self.subject}" if self.subject else self.field
        parts = [("wanted", self.wanted), ("got", self.got)]
        found = "; ".join(f"{word} {text}" for word, text in parts if text)
        detail = f" ({found})" if found else ""
        return f"[{self.code}] {where}: {self.what}{detail}. {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default exception pickling,
        # and worker processes hand errors back to their parent.
        return (
            _rebuild_input_error,
            (
                self.code,
                self.what,
                self.field,
                self.fix,
                self.subject,
                self.wanted,
                self.got,
            ),
        )


def _rebuild_input_error(
    code: str, what: str, field: str, fix: str, subject: str | None, wanted: str, got: str
) -> DTwinInputError:
    return DTwinInputError(
        code, what, field=field, fix=fix, subject=subject, wanted=wanted, got=got
    )


class BackendUnavailableError(DTwinError, RuntimeError):
    """A backend named explicitly cannot run here; the message says why and what to use."""


class BackendFailedError(DTwinError, RuntimeError):
    """A backend that can run here failed on the way, e.g. a GPU; nothing else was tried instead."""


class VerificationError(DTwinError, RuntimeError):
    """A model that was exported does not compute what the engine does; nothing was written."""


class MissingExtraError(DTwinError, ImportError):
    """An optional package is needed; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        self.purpose = purpose
        super().__init__(
            f"{purpose} needs the package {package}: pip install 'dtwin_fast[{extra}]'"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.package, self.extra, self.purpose))
