"""`weights.onnx`: the network as an ONNX graph, compared with onnxruntime before it is written."""

import json
import warnings
from typing import Any

import torch

from bingo.errors import UserError
from bingo.export.network import Network
from bingo.files import first_line

FILE = "weights.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18
INPUT, OUTPUT = "images", "logits"
MOST_BYTES = 2_000_000_000
"""protobuf holds no more than 2 GiB."""


def files(network: Network) -> dict[str, bytes]:
    """Name -> content. `UserError`: too large, no ONNX operators for it, or onnxruntime computes other logits."""
    if sum(tensor.nbytes for tensor in network.state.values()) > MOST_BYTES:
        raise UserError(f"{network.name} is larger than the 2 GB of an ONNX file: leave onnx out of --format")
    graph = converted(network.probe)  # the converter would leave out what is zero
    prove(network.probe, graph)
    if network.zeros:
        fill(graph, network)
    return {FILE: graph.SerializeToString()}


def converted(network: Network) -> Any:
    """The ONNX model: float32 batch x 3 x size x size in, batch x classes out, the batch of any size."""
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own code
            program = torch.onnx.export(
                network.module, (network.images,), dynamo=True, opset_version=OPSET, input_names=[INPUT],
                output_names=[OUTPUT], dynamic_shapes=({0: batch},), external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # torch raises many types here, and each means the same
        raise UserError(
            f"{network.name} cannot be made an ONNX graph ({first_line(error)}): leave onnx out of --format"
        ) from error
    assert program is not None
    graph = program.model_proto
    forget_origin(graph)
    for name, value in metadata(network).items():
        graph.metadata_props.add(key=name, value=value)
    return graph


def forget_origin(graph: Any) -> None:
    """Take out where in the Python code each node comes from: paths of this machine."""
    inner = graph.graph
    for part in (graph, inner, *inner.node, *inner.initializer, *inner.value_info, *inner.input, *inner.output):
        part.ClearField("metadata_props")
    for node in inner.node:
        node.ClearField("doc_string")


def metadata(network: Network) -> dict[str, str]:
    """What the file says of itself. The normalisation is not in the graph."""
    seen = network.input
    said = (
        f"RGB from 0 to 1, shorter side resized to {seen['resize']}, central {seen['size']} x {seen['size']}, "
        "less mean, by std; not in the graph"
        if seen
        else "not recorded; not in the graph"
    )
    found = {"model": network.name, "preprocessing": said}
    if seen:
        found |= {name: json.dumps(seen[name]) for name in ("mean", "std", "size", "resize")}
    return found | ({"class_names": json.dumps(network.class_names)} if network.class_names else {})


def prove(network: Network, graph: Any) -> None:
    """`UserError` unless onnxruntime's logits are the network's, for batches of several sizes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def answer(images: torch.Tensor) -> torch.Tensor:
        batches = (images[:1], images[1:])
        return torch.cat([torch.from_numpy(session.run(None, {INPUT: part.numpy()})[0]) for part in batches])

    network.prove(answer, "onnxruntime", "onnx")


def fill(graph: Any, network: Network) -> None:
    """Give a graph the classifier of this network. `UserError` if the converter has rewritten the one that it has."""
    held = {initializer.name: initializer for initializer in graph.graph.initializer}
    for name in (f"{network.classifier}.weight", f"{network.classifier}.bias"):
        if name not in held or tuple(held[name].dims) != network.state[name].shape:
            raise UserError(
                f"the ONNX graph of {network.name} has no {name} to be trained: give --classifier, or leave onnx "
                "out of --format"
            )
        held[name].raw_data = network.state[name].numpy().tobytes()


def about() -> dict[str, Any]:
    """What weights.json says of the file."""
    return {"opset": OPSET, "input": INPUT, "output": OUTPUT}


def loading(network: Network) -> str:
    """Python that runs the file in the folder `DIR`."""
    return (
        f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("DIR/{FILE}")\n'
        f"# images: float32 numpy array, batch x 3 x {network.size} x {network.size}, normalised as said above\n"
        f'logits = session.run(["{OUTPUT}"], {{"{INPUT}": images}})[0]'
    )
