"""Certificates: which files are refused. What a port does with them: tests/contract/test_edges_tls.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from serving.errors import StartupError
from tests.support.tls_files import certificates, put


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "cert.pem").unlink(), r"cert.pem \(--tls-cert\) cannot be read: No such file"),
        (lambda folder: (folder / "key.pem").unlink(), r"key.pem \(--tls-key\) cannot be read: No such file"),
        (lambda folder: (folder / "ca.pem").unlink(), r"ca.pem \(--tls-client-ca\) cannot be read: No such file"),
        (
            lambda folder: (folder / "cert.pem").write_text("no"),
            r"cert.pem \(--tls-cert\) and .*key.pem \(--tls-key\) are",
        ),
        (lambda folder: (folder / "key.pem").write_text("no"), r"are no certificate and its unencrypted key, both PEM"),
        (lambda folder: trustme.CA().private_key_pem.write_to_path(folder / "key.pem"), r"are no certificate and its"),
        (lambda folder: (folder / "ca.pem").write_text("no"), r"ca.pem \(--tls-client-ca\) holds no certificate of an"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_name(
    tmp_path: Path, authority: trustme.CA, spoil: Callable[[Path], object], said: str
) -> None:
    put(tmp_path, authority)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    spoil(tmp_path)
    with pytest.raises(StartupError, match=said):
        certificates(tmp_path, tmp_path / "ca.pem")


def test_a_key_with_a_password_is_refused_rather_than_asked_for(tmp_path: Path, authority: trustme.CA) -> None:
    from cryptography.hazmat.primitives import serialization

    put(tmp_path, authority)
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "key.pem").write_bytes(encrypted)
    with pytest.raises(StartupError, match="no certificate and its unencrypted key"):
        certificates(tmp_path)
