"""Our certificates as `grpc` wants them."""

from __future__ import annotations

from typing import Any

import grpc

from serving.edge.tls import Certificates


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """What a secure port is opened with. gRPC asks before every handshake whether there are other certificates."""

    def renewed() -> Any:
        return _configuration(certificates) if certificates.renew() else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(certificates), renewed, require_client_authentication=certificates.mutual
    )


def _configuration(certificates: Certificates) -> Any:
    pem = certificates.pem
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], pem.authority)
