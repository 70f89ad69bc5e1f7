"""What an op over the queue is asked for, as one object: built where a call comes in and handed on whole."""

import math
from typing import NamedTuple

from torch import Tensor


class Request(NamedTuple):
    """The arguments that the ops share, as `queue_softmax` explains them. A tuple: every call builds one.

    `dispatch.accept` builds it from checked arguments. normalize: the fused kernels give q's rows unit length first
    (the plain implementations are given unit rows); grad: whether the mean is wanted; values: what is averaged in place
    of the keys. Legend: R rows, K keys, C channels, D channels of the values, E excluded ids per row, G rows of
    `exclude_GE`.
    """

    q_RC: Tensor
    queue_KC: Tensor
    temperature: float = 1.0
    impl: str = "auto"
    exclude_GE: Tensor | None = None
    queue_ids_K: Tensor | None = None
    unit_rows: bool = False
    normalize: bool = False
    grad: bool = True
    values_KD: Tensor | None = None

    @property
    def scale(self) -> float:
        """Of the base-2 logits that the fused kernels work with: log2(e) / temperature."""
        return math.log2(math.e) / self.temperature

    @property
    def averaged_KD(self) -> Tensor:
        """The matrix whose rows the softmax averages: the values, by default the keys themselves."""
        return self.queue_KC if self.values_KD is None else self.values_KD

    def of_keys(self, keys: slice) -> "Request":
        """The same of a part of the queue."""
        ids = None if self.queue_ids_K is None else self.queue_ids_K[keys]
        values = None if self.values_KD is None else self.values_KD[keys]
        return self._replace(queue_KC=self.queue_KC[keys], queue_ids_K=ids, values_KD=values)
