"""Streams steps to a stateful model, each computed exactly once whatever breaks on the way; `tritonclient` and NumPy alone.

    python examples/sequence_client.py ADDRESS MODEL STEPS.npy    # float32 [steps, features], as they come

A step that was perhaps lost is sent again as it was, with its number: the server computes it once and answers the same. The
nonce says that a START is the same START; the epoch, that it is still this sequence which goes on.
"""

import argparse
import secrets
import time

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

AGAIN = {"StatusCode.UNAVAILABLE", "StatusCode.ABORTED", "StatusCode.DEADLINE_EXCEEDED"}
TRIES = 20  # of one step, a second apart at most


def answers(client, model, steps, sequence=None, last=None):
    """The answer to each step, as soon as it is there. Ends the sequence with step number `last`, if that is said."""
    sequence = sequence or secrets.randbits(62)
    said = {"sequence_nonce": secrets.randbits(62)}
    for number, step in enumerate(steps):
        x = grpcclient.InferInput("x", [1, 1, *step.shape], "FP32")
        x.set_data_from_numpy(step[np.newaxis, np.newaxis])
        flags = {"sequence_id": sequence, "sequence_start": number == 0, "sequence_end": number == last}
        for tried in range(1, TRIES + 1):
            try:
                parameters = {"sequence_step": number, **said}
                answer = client.infer(model, [x], **flags, parameters=parameters, client_timeout=5)
                break
            except InferenceServerException as error:
                if error.status() not in AGAIN or tried == TRIES:
                    raise
                time.sleep(min(0.01 * 2**tried, 1))
        said = {"sequence_epoch": answer.get_response().parameters["sequence_epoch"].int64_param}
        yield answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Streams steps to a stateful model, each computed exactly once.")
    parser.add_argument("address", metavar="ADDRESS", help="the server's gRPC port, as 127.0.0.1:8001")
    parser.add_argument("model", metavar="MODEL", help="a stateful model whose input is x")
    parser.add_argument("steps", metavar="STEPS.npy", help="float32 [steps, features]")
    said = parser.parse_args()
    try:
        steps = np.load(said.steps)
    except (OSError, ValueError) as error:
        parser.error(f"{said.steps} cannot be read: {error}")
    with grpcclient.InferenceServerClient(said.address) as client:
        for answer in answers(client, said.model, steps, last=len(steps) - 1):
            print(*answer.as_numpy("y").ravel(), flush=True)


if __name__ == "__main__":
    main()
