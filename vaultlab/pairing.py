"""Who may talk to the daemon: codes, the keys that come of them, and what is signed with those."""

from pathlib import Path


class Pairings:
    """The paired devices of one vault, kept for this user's eyes only in `home`, its folder under the state folder."""

    def __init__(self, home: Path) -> None:
        self._path = home / "pairing.json"
