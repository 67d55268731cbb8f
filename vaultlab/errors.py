"""Every error, split by who must act.

VaultlabError
├── NoteError    the author: shown in the note, on the line it is about
├── RunError     the machine's owner: a sentence in the note, the traceback in the log
└── VaultError   nobody yet: the vault was not as it was a moment ago; it is tried again

A message says what was asked and what was there; the hint says the mend.
"""


class VaultlabError(Exception):
    """The root of the tree; never raised itself."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class NoteError(VaultlabError):
    """Something that the author wrote cannot be done as written.

    `field` is the block's key that it is about; `line` is the 1-based line of the note.
    """

    def __init__(self, message: str, hint: str = "", *, field: str | None = None, line: int | None = None) -> None:
        super().__init__(message, hint)
        self.field = field
        self.line = line


class RunError(VaultlabError):
    """The machine could not do it: memory, time, disk, a missing model, a worker that died."""


class VaultError(VaultlabError):
    """A file changed under our hands; reading again and trying again is the mend."""
