"""A client of the daemon's protocol that shares no code with the server: what is signed is written out once more."""

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer, its headers in small letters. `signed`: with the key of whoever asked, for this very request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    signed: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def sign(key: bytes, *words: str, body: bytes) -> str:
    said = "\n".join([*words, hashlib.sha256(body).hexdigest()])
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def derive(code: bytes, salt: str, info: str) -> bytes:
    """HKDF-SHA256 to 32 bytes, which is one round."""
    first = hmac.new(bytes.fromhex(salt), code, hashlib.sha256).digest()
    return hmac.new(first, info.encode() + b"\x01", hashlib.sha256).digest()


@dataclass(frozen=True)
class Client:
    """Asks as the plugin does. `time_ms` and `nonce` stand in for the clock and for chance."""

    port: int
    device: str
    key: bytes
    time_ms: int | None = None
    nonce: str | None = None

    def headers(self, method: str, target: str, body: bytes = b"") -> dict[str, str]:
        time_ms = str(self.time_ms or time.time_ns() // 1_000_000)
        nonce = self.nonce or secrets.token_hex(16)
        words = ("vaultlab 1 request", method, target, self.device, time_ms, nonce)
        return {
            "Host": f"127.0.0.1:{self.port}",
            "X-Vaultlab-Protocol": "1",
            "X-Vaultlab-Device": self.device,
            "X-Vaultlab-Time": time_ms,
            "X-Vaultlab-Nonce": nonce,
            "X-Vaultlab-Mac": sign(self.key, *words, body=body),
            **({"Content-Type": "application/json"} if body else {}),
        }

    def ask(self, method: str, target: str, body: object = None, **more: str | None) -> Reply:
        """`more` are headers to put in another's place, with `_` for `-`; None leaves one out."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers: dict[str, str | None] = dict(self.headers(method, target, content))
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        return self.send(method, target, content, {name: value for name, value in headers.items() if value is not None})

    def send(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send this very request, whoever signed it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            found = answer.read()
            told = {name.lower(): value for name, value in answer.headers.items()}
        finally:
            connection.close()
        asked = [headers.get(f"X-Vaultlab-{name}", "") for name in ("Device", "Time", "Nonce")]
        meant = sign(self.key, f"vaultlab 1 answer {answer.status}", method, target, *asked, body=found)
        return Reply(answer.status, told, found, hmac.compare_digest(told.get("x-vaultlab-mac", ""), meant))


def pair(port: int, code: str, name: str = "Obsidian", time_ms: int | None = None) -> tuple[Client | None, Reply]:
    """What a plugin does with a code that was typed; the new client if the daemon proved that it knows the code too."""
    letters = code.replace("-", "")
    secret = base64.b32decode(letters + "=" * (-len(letters) % 8))
    nonce = secrets.token_hex(16)
    newcomer = Client(port, "0" * 32, derive(secret, nonce, "vaultlab 1 pair"), time_ms, nonce)
    body = json.dumps({"name": name}).encode()
    headers = newcomer.headers("POST", "/v1/pair", body)
    reply = newcomer.send("POST", "/v1/pair", body, headers)
    if reply.status != 200:
        return None, reply
    device = reply.json["device"]
    client = Client(port, device, derive(secret, nonce + reply.json["nonce"], f"vaultlab 1 key {device}"))
    words = (headers["X-Vaultlab-Device"], headers["X-Vaultlab-Time"], nonce)
    meant = sign(client.key, "vaultlab 1 answer 200", "POST", "/v1/pair", *words, body=reply.body)
    return client, replace(reply, signed=hmac.compare_digest(meant, reply.headers["x-vaultlab-mac"]))
