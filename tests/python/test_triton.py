"""The Open Inference Protocol, by NVIDIA's own client."""
import json

import numpy as np
import pytest
import tritonclient.grpc as triton
from conftest import Mesh


@pytest.mark.parametrize("door", ["gateway", "tool_call"])
def test_tritonclient_asks_liveness_metadata_and_an_inference(mesh: Mesh, door: str) -> None:
    client = triton.InferenceServerClient(mesh.addresses[door])
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tool_call")
    assert not client.is_model_ready("nobody")
    about = client.get_model_metadata("tool_call")
    assert [(i.name, i.datatype) for i in about.inputs] == [("text_input", "BYTES")] and "text_output" in [o.name for o in about.outputs]

    asked = triton.InferInput("text_input", [1], "BYTES")
    asked.set_data_from_numpy(np.array([b"play some jazz by Miles Davis"], dtype=np.object_))
    answer = client.infer("tool_call", [asked], outputs=[triton.InferRequestedOutput("text_output")])
    call = json.loads(answer.as_numpy("text_output").flatten()[0])
    assert set(call) == {"tool", "arguments"}


@pytest.mark.parametrize("door", ["gateway", "tool_call"])
def test_a_model_that_is_not_there_is_not_found(mesh: Mesh, door: str) -> None:
    client = triton.InferenceServerClient(mesh.addresses[door])
    asked = triton.InferInput("text_input", [1], "BYTES")
    asked.set_data_from_numpy(np.array([b"x"], dtype=np.object_))
    with pytest.raises(triton.InferenceServerException, match="nobody"):
        client.infer("nobody", [asked])
