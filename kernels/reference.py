"""`queue_softmax` in plain PyTorch: the materialised specification and the chunked path used on CPUs.

Shapes: R rows (queries), K queue keys, C channels. Both functions trust their inputs; `queue_softmax` checks them.
"""

import torch
from torch import Tensor

# At most 16 MB of fp32 logits at a time. Smaller blocks fit a core's own cache but were no faster on one thread, and on
# busy cores much slower on two: every operation on a block ends with the threads waiting for each other.
ROWS_PER_BLOCK = 1024
KEYS_PER_CHUNK = 4096


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 for fp64 inputs, fp32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def queue_softmax_reference(q_RC: Tensor, queue_KC: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The definition, with the R x K logits in memory: log-sum-exp (R) and softmax-weighted mean key (R, C)."""
    dtype = accumulation_dtype(q_RC.dtype)
    q_RC, queue_KC = q_RC.to(dtype), queue_KC.to(dtype)
    # An enclosing autocast region would otherwise round the operands of both products to half precision.
    with torch.autocast(q_RC.device.type, enabled=False):
        logits_RK = (q_RC @ queue_KC.T) / temperature
        return torch.logsumexp(logits_RK, dim=1), torch.softmax(logits_RK, dim=1) @ queue_KC


def queue_softmax_chunked(q_RC: Tensor, queue_KC: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The same with a running maximum over blocks of rows and keys: extra memory does not grow with K."""
    dtype = accumulation_dtype(q_RC.dtype)
    lse_R = q_RC.new_empty(q_RC.shape[0], dtype=dtype)
    mean_RC = q_RC.new_empty(q_RC.shape, dtype=dtype)
    with torch.autocast(q_RC.device.type, enabled=False):
        for start in range(0, q_RC.shape[0], ROWS_PER_BLOCK):
            rows = slice(start, start + ROWS_PER_BLOCK)
            _reduce_rows(q_RC[rows].to(dtype) / temperature, queue_KC, lse_R[rows], mean_RC[rows])
    return lse_R, mean_RC


def _reduce_rows(q_RC: Tensor, queue_KC: Tensor, lse_R: Tensor, mean_RC: Tensor) -> None:
    """Fill `lse_R` and `mean_RC` for one block of queries that already carry 1/temperature."""
    largest_R1 = q_RC.new_full((q_RC.shape[0], 1), -torch.inf)
    total_R1 = torch.zeros_like(largest_R1)
    mean_RC.zero_()
    for start in range(0, queue_KC.shape[0], KEYS_PER_CHUNK):
        keys_NC = queue_KC[start : start + KEYS_PER_CHUNK].to(q_RC.dtype)
        logits_RN = q_RC @ keys_NC.T
        larger_R1 = torch.maximum(largest_R1, logits_RN.amax(dim=1, keepdim=True))
        shrink_R1 = (largest_R1 - larger_R1).exp_()
        weights_RN = logits_RN.sub_(larger_R1).exp_()
        total_R1 = total_R1.mul_(shrink_R1).add_(weights_RN.sum(dim=1, keepdim=True))
        mean_RC.mul_(shrink_R1).addmm_(weights_RN, keys_NC)
        largest_R1 = larger_R1
        del logits_RN, weights_RN  # or two blocks would be alive while the next one is made
    mean_RC.div_(total_R1)
    lse_R.copy_(total_R1.log_().add_(largest_R1).squeeze(1))
