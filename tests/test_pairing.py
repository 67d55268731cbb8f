"""Pairing: the derivation against its RFC, codes that are used once and soon, keys that nobody else reads."""

import base64
import hashlib
import hmac
import json
import secrets
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultlab.errors import RunError
from vaultlab.pairing import CODE_S, COMMAND_LINE, TRIES, Asked, Pairings, code_key, hkdf, shared_key

NOW = 1_800_000_000.0
# RFC 5869, appendix A, test cases 1 to 3: secret, salt, info, length, what comes out
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x00, 0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8"
        "367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    ("0b" * 22, "", "", 42, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
]


@pytest.mark.parametrize(("secret", "salt", "info", "length", "found"), RFC_5869)
def test_hkdf_gives_what_its_rfc_says(secret, salt, info, length, found):
    assert hkdf(bytes.fromhex(secret), bytes.fromhex(salt), bytes.fromhex(info), length).hex() == found


def asked(body: bytes = b"{}", nonce: str | None = None) -> Asked:
    return Asked("POST", "/v1/pair", "0" * 32, "1800000000000", nonce or secrets.token_hex(16), body)


def told(code: str) -> bytes:
    """What whoever types the code makes of it."""
    letters = code.replace("-", "")
    return base64.b32decode(letters + "=" * (-len(letters) % 8))


def pair(
    pairings: Pairings, code: str, now: float = NOW, name: str = "Obsidian"
) -> tuple[Asked, tuple[str, str] | None]:
    ask = asked()
    return ask, pairings.pair(ask, ask.mac(code_key(told(code), ask.nonce)), name, now)


@pytest.fixture
def pairings(tmp_path):
    return Pairings(tmp_path / "state" / "vault")


def test_both_sides_come_to_the_same_key(pairings):
    code = pairings.offer(NOW)
    assert len(told(code)) == 16
    ask, found = pair(pairings, code)
    device, nonce = found
    assert pairings.key(device) == shared_key(told(code), (ask.nonce, nonce), device)
    assert pairings.devices() == {device: "Obsidian"}


def test_a_code_is_used_once(pairings):
    code = pairings.offer(NOW)
    assert pair(pairings, code)[1]
    assert pair(pairings, code)[1] is None
    assert len(pairings.devices()) == 1


@pytest.mark.parametrize("later", [CODE_S, CODE_S + 3600, -1])
def test_a_code_is_void_after_two_minutes_and_before_it_was_made(pairings, later):
    code = pairings.offer(NOW)
    assert pair(pairings, code, NOW + later)[1] is None
    assert pair(pairings, code, NOW)[1] is None, "a void code does not come back with the clock"
    assert pairings.devices() == {}


def test_a_code_is_good_up_to_two_minutes(pairings):
    assert pair(pairings, pairings.offer(NOW), NOW + CODE_S - 0.001)[1]


def test_a_code_that_is_tried_wrongly_too_often_is_void(pairings):
    code = pairings.offer(NOW)
    for _ in range(TRIES - 1):
        assert pair(pairings, base64.b32encode(secrets.token_bytes(16)).decode())[1] is None
    good = pairings.offer(NOW)
    for _ in range(TRIES):
        assert pair(pairings, code)[1] is None
    assert pair(pairings, good)[1] is None


def test_a_code_survives_fewer_wrong_tries(pairings):
    code = pairings.offer(NOW)
    for _ in range(TRIES - 1):
        assert pair(pairings, base64.b32encode(secrets.token_bytes(16)).decode())[1] is None
    assert pair(pairings, code)[1]


def test_a_new_code_voids_the_old_one(pairings):
    old, new = pairings.offer(NOW), pairings.offer(NOW)
    assert pair(pairings, old)[1] is None
    assert pair(pairings, new)[1]


def test_one_of_many_who_use_a_code_at_once_is_paired(pairings):
    code, found = pairings.offer(NOW), []
    threads = [threading.Thread(target=lambda: found.append(pair(pairings, code)[1])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one is not None for one in found) == 1
    assert len(pairings.devices()) == 1


def test_a_code_that_was_never_offered_pairs_nobody(pairings):
    assert pair(pairings, base64.b32encode(bytes(16)).decode())[1] is None


def test_what_the_code_signed_cannot_be_another_body(pairings):
    code = pairings.offer(NOW)
    ask = asked(b'{"name": "mine"}')
    mac = ask.mac(code_key(told(code), ask.nonce))
    assert pairings.pair(asked(b'{"name": "evil"}', ask.nonce), mac, "evil", NOW) is None


def test_keys_are_for_this_users_eyes(pairings, tmp_path):
    pair(pairings, pairings.offer(NOW))
    folder = tmp_path / "state" / "vault"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "pairing.json").stat().st_mode) == 0o600
    assert {path.name for path in folder.iterdir()} <= {"pairing.json", "pairing.lock"}


def test_vaults_and_devices_have_keys_of_their_own(tmp_path):
    keys, ids = set(), set()
    for vault in ("a", "b"):
        pairings = Pairings(tmp_path / vault)
        for _ in range(2):
            device, _nonce = pair(pairings, pairings.offer(NOW))[1]
            keys.add(pairings.key(device))
            ids.add(device)
        keys.add(pairings.own_key(NOW))
    assert (len(keys), len(ids)) == (6, 4)
    assert all(Pairings(tmp_path / "a").key(id) is None or Pairings(tmp_path / "b").key(id) is None for id in ids)


def test_the_command_line_keeps_its_key_and_needs_no_code(pairings):
    key = pairings.own_key(NOW)
    assert key == pairings.own_key(NOW + 1) == pairings.key(COMMAND_LINE)
    assert len(key) == 32


def test_an_offer_leaves_the_paired_alone(pairings):
    device, _ = pair(pairings, pairings.offer(NOW))[1]
    key = pairings.key(device)
    pairings.offer(NOW)
    assert pairings.key(device) == key


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b'{"devices": {"x": 3}}',
        b'{"devices": {"%s": {"name": "n"}}}' % (b"0" * 32),
    ],
)
def test_a_file_that_says_nothing_sensible_pairs_nobody(pairings, tmp_path, said):
    pairings.own_key(NOW)
    (tmp_path / "state" / "vault" / "pairing.json").write_bytes(said)
    assert pairings.key(COMMAND_LINE) is None
    assert pair(pairings, pairings.offer(NOW))[1]


def test_a_key_that_is_cut_short_is_none(pairings, tmp_path):
    pairings.own_key(NOW)
    path = tmp_path / "state" / "vault" / "pairing.json"
    said = json.loads(path.read_bytes())
    said["devices"][COMMAND_LINE]["key"] = ""
    path.write_text(json.dumps(said))
    assert pairings.key(COMMAND_LINE) is None


def test_where_keys_cannot_be_kept_it_says_so(tmp_path):
    (tmp_path / "state").write_text("a file in the folder's place")
    with pytest.raises(RunError, match="could not be kept"):
        Pairings(tmp_path / "state").offer(NOW)


WORDS = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=8)


@given(st.tuples(WORDS, WORDS, WORDS, WORDS, WORDS, st.binary(max_size=8)), st.integers(0, 5), st.binary(min_size=1))
def test_a_signature_covers_every_word(words, which, other):
    key, changed = bytes(32), list(words)
    changed[which] = other if which == 5 else other.hex()
    one, two = Asked(*words), Asked(*changed)
    assert (one.mac(key) == two.mac(key)) == (one == two)
    assert (one.answer_mac(key, 200, b"") == two.answer_mac(key, 200, b"")) == (words[:5] == tuple(changed[:5]))


@given(st.tuples(WORDS, WORDS, WORDS, WORDS, WORDS, st.binary(max_size=8)), st.integers(100, 599))
def test_a_request_is_never_an_answer(words, status):
    one = Asked(*words)
    assert one.mac(bytes(32)) != one.answer_mac(bytes(32), status, one.body)
    assert one.answer_mac(bytes(32), status, b"") != one.answer_mac(bytes(32), status + 1, b"")


def test_what_is_signed_is_what_the_document_says():
    ask, key = Asked("POST", "/v1/plan", "ab" * 16, "1800000000000", "cd" * 16, b"{}"), b"k" * 32
    words = ["POST", "/v1/plan", "ab" * 16, "1800000000000", "cd" * 16, hashlib.sha256(b"{}").hexdigest()]

    def signed(label: str) -> str:
        return hmac.digest(key, "\n".join([label, *words]).encode(), "sha256").hex()

    assert ask.mac(key) == signed("vaultlab 1 request")
    assert ask.answer_mac(key, 404, b"{}") == signed("vaultlab 1 answer 404")
