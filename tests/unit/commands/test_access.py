"""The flags for TLS and a token become what a connection is made of, or one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.access import Access, AccessError, add_flags, read
from commands.parser import Parser


def given(*line: object) -> Access:
    """What these flags say."""
    parser = Parser(prog="lstm-try")
    add_flags(parser)
    return read(parser.parse_args(list(map(str, line))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(name)
    (tmp_path / "tokens").write_text("\n first second\nthird\n")
    return tmp_path


def test_without_flags_a_connection_is_plain_and_says_nothing_of_its_client() -> None:
    assert given() == Access(metadata=(), tls=None)


def test_the_first_token_goes_with_every_call(folder: Path) -> None:
    assert given("--token-file", folder / "tokens") == Access((("authorization", "Bearer first"),))


def test_tls_trusts_the_system_or_one_authority_and_may_show_a_certificate(folder: Path) -> None:
    ca, cert, key = ("--tls-ca", folder / "ca"), ("--tls-cert", folder / "cert"), ("--tls-key", folder / "key")
    assert given("--tls").tls == (None, None, None)
    assert given(*ca).tls == (b"ca", None, None)
    assert given(*cert, *key).tls == (None, b"key", b"cert")
    assert given(*ca, *cert, *key).tls == (b"ca", b"key", b"cert")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["--tls-cert", "c.pem"], "a client certificate needs both --tls-cert and --tls-key"),
        (["--tls-key", "k.pem"], "a client certificate needs both --tls-cert and --tls-key"),
        (["--tls-ca", "/none.pem"], "/none.pem cannot be read: No such file or directory"),
        (["--token-file", "/dev/null"], "/dev/null holds no token, which is ASCII text without spaces"),
    ],
)
def test_what_does_not_belong_together_or_is_not_there(line: list[str], sentence: str) -> None:
    with pytest.raises(AccessError) as refused:
        given(*line)
    assert str(refused.value) == sentence


def test_a_token_of_other_letters_is_none(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("schlüssel", encoding="utf-8")
    with pytest.raises(AccessError, match="holds no token"):
        given("--token-file", tmp_path / "tokens")
