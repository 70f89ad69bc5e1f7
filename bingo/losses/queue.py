"""The queue of past keys as a module: buffers, cursor and ids. `kernels/ring.py` writes a step's keys into it.

The same on every rank, and outside DDP.
"""

import torch
import torch.nn.functional as F

from bingo.kernels import NewKeys

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NOBODY = -1


class KeyQueue:
    """K x C unit rows and the id of the image that each came from; oldest rows are overwritten first.

    Starts as random directions drawn from `seed`, which belong to no image (id -1). The loss writes a step's new keys,
    after it has read the queue. The position lives on the device: nothing here waits for it but `state`.
    """

    def __init__(self, length: int, dim: int, *, dtype: str, device: torch.device, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = F.normalize(torch.randn(length, dim, generator=generator), dim=1)
        self.keys_KC = rows.to(device, DTYPES[dtype])
        self.ids_K = torch.full((length,), NOBODY, dtype=torch.int64, device=device)
        self.cursor = torch.zeros(2, dtype=torch.int64, device=device)

    def entry(self, keys_NC: torch.Tensor, ids_N: torch.Tensor) -> NewKeys:
        """What the loss needs to write this step's keys (all ranks', in rank order) and their ids (int64)."""
        return NewKeys(keys_NC.detach(), self.cursor, ids_N)

    def fill(self, keys_KC: torch.Tensor, ids_K: torch.Tensor) -> None:
        """Replace all keys and ids (int64)."""
        self.keys_KC.copy_(keys_KC)
        self.ids_K.copy_(ids_K)

    def state(self) -> dict[str, object]:
        return {"keys": self.keys_KC, "ids": self.ids_K, "pointer": int(self.cursor[0])}

    def load(self, state: dict[str, object]) -> None:
        keys, ids, pointer = state["keys"], state["ids"], state["pointer"]
        assert isinstance(keys, torch.Tensor)
        assert isinstance(ids, torch.Tensor)
        assert isinstance(pointer, int)
        self.fill(keys, ids)
        self.cursor[0] = pointer
