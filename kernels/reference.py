"""`queue_softmax` in plain PyTorch: the materialised specification and the chunked path used on CPUs.

Shapes: R rows (queries), K queue keys, C channels, D channels of what is averaged (the keys, or a request's values), E
excluded ids per row, G rows of `exclude` (row i reads i % G).
Nothing here checks its inputs; `queue_softmax` does.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from bingo.kernels.request import Request

# At most 16 MB of fp32 logits at a time. Smaller blocks fit a core's own cache but were no faster on one thread, and on
# busy cores much slower on two: every operation on a block ends with the threads waiting for each other.
ROWS_PER_BLOCK = 1024
KEYS_PER_CHUNK = 4096


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 for fp64 inputs, fp32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def excluded_keys(exclude_RE: Tensor, ids_N: Tensor) -> Tensor:
    """R x N: whether a key's id is one of the row's excluded ids; negative ids exclude nothing."""
    found_RN = torch.zeros(len(exclude_RE), len(ids_N), dtype=torch.bool, device=ids_N.device)
    for wanted_R in exclude_RE.unbind(1):
        found_RN |= (ids_N == wanted_R[:, None]) & (wanted_R >= 0)[:, None]
    return found_RN


def per_row(exclude_GE: Tensor | None, rows: int) -> Tensor | None:
    """`exclude` with one line per row: line i is line i % G."""
    return None if exclude_GE is None else exclude_GE.repeat(rows // max(1, len(exclude_GE)), 1)


def queue_softmax_reference(request: Request) -> tuple[Tensor, Tensor]:
    """The definition, with the R x K logits in memory: log-sum-exp (R) and softmax-weighted mean (R, D)."""
    dtype, queue_ids_K = accumulation_dtype(request.queue_KC.dtype), request.queue_ids_K
    q_RC, queue_KC = request.q_RC.to(request.queue_KC.dtype).to(dtype), request.queue_KC.to(dtype)
    # An enclosing autocast region would otherwise round the operands of both products to half precision.
    with torch.autocast(q_RC.device.type, enabled=False):
        logits_RK = (q_RC @ queue_KC.T) / request.temperature
        exclude_RE = per_row(request.exclude_GE, len(q_RC))
        if exclude_RE is not None and queue_ids_K is not None:
            logits_RK.masked_fill_(excluded_keys(exclude_RE, queue_ids_K), -torch.inf)
        lse_R = torch.logsumexp(logits_RK, dim=1)
        weights_RK = torch.softmax(logits_RK, dim=1)
        if exclude_RE is not None:  # a row with every key excluded has no softmax: its mean key is zero
            weights_RK.masked_fill_((lse_R == -torch.inf)[:, None], 0)
        return lse_R, weights_RK @ request.averaged_KD.to(dtype)


def queue_softmax_chunked(request: Request) -> tuple[Tensor, Tensor]:
    """The same with a running maximum over blocks of rows and keys: extra memory does not grow with K.

    Without `request.grad` the mean (0, D) is not computed.
    """
    q_RC, queue_KC, grad = request.q_RC, request.queue_KC, request.grad
    dtype = accumulation_dtype(queue_KC.dtype)
    rows, width = len(q_RC), request.averaged_KD.shape[1]
    lse_R = q_RC.new_empty(rows, dtype=dtype)
    mean_RD = q_RC.new_empty((rows if grad else 0, width), dtype=dtype)
    exclude_RE = per_row(request.exclude_GE, rows)
    with torch.autocast(q_RC.device.type, enabled=False):
        for start in range(0, rows, ROWS_PER_BLOCK):
            block = slice(start, start + ROWS_PER_BLOCK)
            scaled_RC = q_RC[block].to(queue_KC.dtype).to(dtype) / request.temperature
            wanted_RE = None if exclude_RE is None else exclude_RE[block]
            chunks = _masked_logits(scaled_RC, request, wanted_RE)
            _reduce_rows(chunks, lse_R[block], mean_RD[block] if grad else None)
    return lse_R, mean_RD


def _masked_logits(scaled_RC: Tensor, request: Request, exclude_RE: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits R x N, what is averaged N x D) of one chunk of the queue after the other; excluded logits are -inf."""
    for start in range(0, request.queue_KC.shape[0], KEYS_PER_CHUNK):
        part = request.of_keys(slice(start, start + KEYS_PER_CHUNK))
        keys_NC = part.queue_KC.to(scaled_RC.dtype)
        logits_RN = scaled_RC @ keys_NC.T
        if exclude_RE is not None and part.queue_ids_K is not None:
            logits_RN.masked_fill_(excluded_keys(exclude_RE, part.queue_ids_K), -torch.inf)
        yield logits_RN, keys_NC if part.values_KD is None else part.values_KD.to(scaled_RC.dtype)
        del logits_RN  # or two blocks would be alive while the next one is made


def _reduce_rows(chunks: Iterator[tuple[Tensor, Tensor]], lse_R: Tensor, mean_RD: Tensor | None) -> None:
    """Fill `lse_R` and `mean_RD` for one block of rows from its chunks of logits."""
    largest_R1 = torch.full_like(lse_R[:, None], -torch.inf)
    total_R1 = torch.zeros_like(largest_R1)
    if mean_RD is not None:
        mean_RD.zero_()
    for logits_RN, averaged_ND in chunks:
        larger_R1 = torch.maximum(largest_R1, logits_RN.amax(dim=1, keepdim=True))
        # A row without any key so far has -inf here, and -inf - -inf would be NaN.
        finite_R1 = larger_R1.clamp(min=torch.finfo(larger_R1.dtype).min)
        shrink_R1 = (largest_R1 - finite_R1).exp_()
        weights_RN = logits_RN.sub_(finite_R1).exp_()
        total_R1 = total_R1.mul_(shrink_R1).add_(weights_RN.sum(dim=1, keepdim=True))
        if mean_RD is not None:
            mean_RD.mul_(shrink_R1).addmm_(weights_RN, averaged_ND)
        largest_R1 = larger_R1
        del logits_RN, weights_RN, averaged_ND
    if mean_RD is not None:
        mean_RD.div_(torch.where(total_R1 == 0, 1, total_R1))
    lse_R.copy_(total_R1.log_().add_(largest_R1).squeeze(1))


def queue_ranks_reference(request: Request, scores_RM: Tensor) -> Tensor:
    """How many keys have q . n above each of the row's scores: int32 (R, M)."""
    q_RC, queue_KC = request.q_RC, request.queue_KC
    dtype = accumulation_dtype(queue_KC.dtype)
    counts_RM = torch.zeros(scores_RM.shape, dtype=torch.int32, device=q_RC.device)
    exclude_RE, rounded_RC = per_row(request.exclude_GE, len(q_RC)), q_RC.to(queue_KC.dtype).to(dtype)
    with torch.autocast(q_RC.device.type, enabled=False):
        for logits_RN, _ in _masked_logits(rounded_RC, request, exclude_RE):
            for m, score_R in enumerate(scores_RM.unbind(1)):
                counts_RM[:, m] += (logits_RN > score_R[:, None]).sum(dim=1, dtype=torch.int32)
    return counts_RM
