"""Who may talk to the daemon: codes, the keys that come of them, and what is signed with those.

A device proves that it was told the code by signing with `code_key`. Both sides then derive the key they share from the
code and a nonce of each, and from then on sign every request and every answer with it.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout
from pydantic import Field, TypeAdapter, ValidationError

from vaultlab.errors import RunError

CODE_S = 120
"""How long a code may be used."""

TRIES = 5
"""A code that was tried wrongly so often is void: whoever has it types nothing, a program sends it."""

COMMAND_LINE = "0" * 32
"""The device that the command line of this very user is."""

_LABEL = "vaultlab 1"
_Hex16 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
_Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF with SHA-256. H. Krawczyk and P. Eronen, RFC 5869 (2010), section 2, https://www.rfc-editor.org/rfc/rfc5869"""
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    block = found = b""
    for count in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([count]), "sha256")
        found += block
    return found[:length]


def code_key(code: bytes, nonce: str) -> bytes:
    """What a device that was told the code signs its asking with; `nonce` is that request's."""
    return hkdf(code, bytes.fromhex(nonce), f"{_LABEL} pair".encode())


def shared_key(code: bytes, nonces: tuple[str, str], device: str) -> bytes:
    """What both sides sign with from then on; the nonces are the request's and the answer's."""
    return hkdf(code, bytes.fromhex("".join(nonces)), f"{_LABEL} key {device}".encode())


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it went over the wire. `target` is path and query, `time` milliseconds since the epoch.

    None of its words has a line end in it: whoever reads one from a request has to see to that.
    """

    method: str
    target: str
    device: str
    time: str
    nonce: str
    body: bytes

    def mac(self, key: bytes) -> str:
        """The request's signature, in hex."""
        return _mac(key, f"{_LABEL} request", self, self.body)

    def answer_mac(self, key: bytes, status: int, body: bytes) -> str:
        """The signature of an answer to this very request, in hex: no other request's, and never a request's."""
        return _mac(key, f"{_LABEL} answer {status}", self, body)


def _mac(key: bytes, label: str, asked: Asked, body: bytes) -> str:
    words = (label, asked.method, asked.target, asked.device, asked.time, asked.nonce)
    said = "\n".join((*words, hashlib.sha256(body).hexdigest()))
    return hmac.digest(key, said.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class Device:
    """A paired device: what its owner calls it, its key in hex, and when it was paired (seconds since the epoch)."""

    name: str
    key: _Hex32
    paired: float


@dataclass(frozen=True, slots=True)
class Offer:
    """A code that has been shown and not yet used."""

    code: _Hex16
    made: float
    tries: int = 0


@dataclass(frozen=True, slots=True)
class _Book:
    devices: dict[_Hex16, Device] = field(default_factory=dict)
    offer: Offer | None = None


_BOOK = TypeAdapter(_Book)


class Pairings:
    """The paired devices of one vault, for this user's eyes only: a file in `home`, the vault's folder in the user's
    state folder. Every method raises RunError where that cannot be read or written."""

    def __init__(self, home: Path) -> None:
        self._path = home / "pairing.json"

    def offer(self, now: float) -> str:
        """A new code, in base32, that pairs one device within two minutes; a code from before is void."""
        code = secrets.token_bytes(16)
        with self._held():
            self._write(replace(self._read(), offer=Offer(code.hex(), now)))
        letters = base64.b32encode(code).decode().rstrip("=")
        return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))

    def pair(self, asked: Asked, mac: str, name: str, now: float) -> tuple[str, str] | None:
        """The new device and our nonce, if the request was signed with the code on offer: the code is used up.
        None if it was not."""
        with self._held():
            book = self._read()
            offer = book.offer
            live = offer is not None and 0 <= now - offer.made < CODE_S
            # Without a code on offer the same is reckoned: how long a refusal takes says nothing.
            code = bytes.fromhex(offer.code) if live and offer else secrets.token_bytes(16)
            proven = hmac.compare_digest(asked.mac(code_key(code, asked.nonce)), mac)
            if offer is None:
                return None
            if not live or not proven:
                left = replace(offer, tries=offer.tries + 1)
                self._write(replace(book, offer=left if live and left.tries < TRIES else None))
                return None
            device, nonce = secrets.token_hex(16), secrets.token_hex(16)
            key = shared_key(code, (asked.nonce, nonce), device).hex()
            self._write(_Book({**book.devices, device: Device(name, key, now)}))
            return device, nonce

    def key(self, device: str) -> bytes | None:
        """The key of a device; None if no such device is paired."""
        found = self._read().devices.get(device)
        return bytes.fromhex(found.key) if found else None

    def own_key(self, now: float) -> bytes:
        """The key of `COMMAND_LINE`, made when it is first wanted: it needs no code, for it is the file's owner."""
        with self._held():
            book = self._read()
            if COMMAND_LINE not in book.devices:
                device = Device("the command line", secrets.token_hex(32), now)
                book = replace(book, devices={**book.devices, COMMAND_LINE: device})
                self._write(book)
            return bytes.fromhex(book.devices[COMMAND_LINE].key)

    def devices(self) -> dict[str, str]:
        """Every paired device: id → name."""
        return {id: device.name for id, device in self._read().devices.items()}

    @property
    def plugin(self) -> bool:
        """Whether a plugin is paired, so that it may be there."""
        return bool(self.devices().keys() - {COMMAND_LINE})

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The command line offers a code while the daemon takes one."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self._path.with_name("pairing.lock"), timeout=5):
                yield
        except Timeout:
            mend = f"If no vaultlab is running, delete {self._path.with_name('pairing.lock')}."
            raise RunError("Another vaultlab has been pairing a device for five seconds.", mend) from None
        except OSError as error:
            raise RunError(
                f"The paired devices could not be kept: {error.strerror}.", f"Make {self._path.parent} writable."
            ) from error

    def _read(self) -> _Book:
        """A file that says nothing sensible pairs nobody."""
        try:
            return _BOOK.validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return _Book()
        except OSError as error:
            mend = f"Make {self._path} readable for you, and for nobody else."
            raise RunError(f"The paired devices could not be read: {error.strerror}.", mend) from error

    def _write(self, book: _Book) -> None:
        temporary = self._path.with_name(".pairing.tmp")
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(_BOOK.dump_json(book))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
