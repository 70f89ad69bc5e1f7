"""The queue of past keys: a ring buffer, the same on every rank, outside DDP."""

import torch
import torch.nn.functional as F

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class KeyQueue:
    """K x C unit rows; starts as random directions drawn from `seed`, oldest rows are overwritten first."""

    def __init__(self, length: int, dim: int, *, dtype: str, device: torch.device, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = F.normalize(torch.randn(length, dim, generator=generator), dim=1)
        self.keys_KC = rows.to(device, DTYPES[dtype])
        self.pointer = 0

    def enqueue(self, keys: torch.Tensor) -> None:
        """Write B x C keys at the pointer, wrapping around; of a batch longer than the queue the last rows stay."""
        length = len(self.keys_KC)
        end = self.pointer + len(keys)
        kept = keys[-length:].to(self.keys_KC.dtype)
        first = (end - len(kept)) % length
        head = min(len(kept), length - first)
        self.keys_KC[first : first + head] = kept[:head]
        self.keys_KC[: len(kept) - head] = kept[head:]
        self.pointer = end % length

    def state(self) -> dict[str, object]:
        return {"keys": self.keys_KC, "pointer": self.pointer}

    def load(self, state: dict[str, object]) -> None:
        keys = state["keys"]
        assert isinstance(keys, torch.Tensor)
        assert isinstance(state["pointer"], int)
        self.keys_KC.copy_(keys)
        self.pointer = state["pointer"]
