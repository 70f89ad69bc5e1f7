"""The kernels still run in Triton's interpreter, which needs no compiler: one call of each op."""

import os
import subprocess
import sys

from tests.support.ranks import ROOT

CODE = """
import torch
import torch.nn.functional as F
from bingo.kernels import bag_loss, queue_ranks, queue_softmax
from bingo.kernels.augment import cutmix
from bingo.kernels.device import device_capability, runs_triton
from bingo.kernels.knn import nearest

assert runs_triton("cpu") and device_capability(torch.device("cpu")) is None
q, n, keys = (F.normalize(torch.randn(*shape, 16), dim=-1) for shape in ((6,), (37,), (3, 2)))
image = torch.randn(2, 3, 8, 8)
calls = (
    lambda impl: queue_softmax(q, n, 0.2, impl=impl)[1],
    lambda impl: queue_ranks(q, n, torch.zeros(6, 1), impl=impl),
    lambda impl: bag_loss(q, keys, torch.ones(2, 2), n, 0.2, impl=impl),
    lambda impl: nearest(q, n, 3, impl=impl)[0],
    lambda impl: cutmix(image, image.flip(0), (1, 2, 5, 7), impl=impl)[0],
)
for call in calls:
    torch.testing.assert_close(call("triton"), call("reference"))
for call in (lambda x: queue_softmax(x, x, 0.2, impl="triton"), lambda x: nearest(x, x, 1, impl="triton")):
    try:
        call(n.bfloat16())
    except ValueError as refusal:
        assert "interpreter computes bfloat16 products wrongly" in str(refusal)
    else:
        raise AssertionError("bfloat16 was taken")
print("done")
"""


def test_every_op_runs_in_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
