"""`grpc.health.v1` on every edge: what is checked, what a watch is told, and when it ends."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.edge.health import HealthState
from tests.support.grpc_port import EDGES, WAIT_SECONDS, channel, port, refusal

ANY = health_pb2.HealthCheckRequest()
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

pytestmark = pytest.mark.parametrize("edge", EDGES)


def test_check_says_what_is_now_whatever_service_is_named(edge: str) -> None:
    state = HealthState()
    with port(edge, health=state) as server, channel(server) as client:
        health = health_pb2_grpc.HealthStub(client)
        for serving, status in ((False, NOT_SERVING), (True, SERVING), (False, NOT_SERVING)):
            state.set(serving)
            for name in ("", "inference.GRPCInferenceService", "anything"):
                asked = health_pb2.HealthCheckRequest(service=name)
                assert health.Check(asked, timeout=WAIT_SECONDS).status == status


def test_watch_says_what_is_now_and_every_change_and_ends_when_the_server_leaves(edge: str) -> None:
    state = HealthState()
    with port(edge, health=state) as server, channel(server) as client:
        watched = health_pb2_grpc.HealthStub(client).Watch(ANY, timeout=WAIT_SECONDS)
        assert next(watched).status == NOT_SERVING
        state.set(True)
        assert next(watched).status == SERVING
        state.set(False)
        assert next(watched).status == NOT_SERVING
        state.set(True)
        assert next(watched).status == SERVING
        state.leave()
        assert [answer.status for answer in watched] == [NOT_SERVING]
        assert watched.code() is grpc.StatusCode.OK


def test_a_watch_that_begins_while_the_server_leaves_is_answered_and_ends(edge: str) -> None:
    state = HealthState()
    state.leave()
    with port(edge, health=state) as server, channel(server) as client:
        watched = health_pb2_grpc.HealthStub(client).Watch(ANY, timeout=WAIT_SECONDS)
        assert [answer.status for answer in watched] == [NOT_SERVING]
        assert watched.code() is grpc.StatusCode.OK


def test_a_client_that_cancels_its_watch_is_told_nothing_more_and_others_are(edge: str) -> None:
    state = HealthState()
    with port(edge, health=state) as server, channel(server) as client:
        health = health_pb2_grpc.HealthStub(client)
        gone, stays = (health.Watch(ANY, timeout=WAIT_SECONDS) for _ in range(2))
        assert next(gone).status == next(stays).status == NOT_SERVING
        gone.cancel()
        state.set(True)
        assert next(stays).status == SERVING
        assert refusal(lambda: next(gone))[0] is grpc.StatusCode.CANCELLED
