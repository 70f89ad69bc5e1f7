"""A training step as one CUDA graph: captured once, launched again with other numbers in the same memory.

With few images per GPU a step is bound by the host, which launches some 850 kernels one by one. Whatever changes from
step to step lies in `Buffers`, and the learning rate in a tensor; the queue's cursor moves on the device. Captured are
augmentation, teacher, student, loss, backward pass, optimiser and the write into the queue. Eager are the steps that
are measured, the first ones, and all steps of what a graph cannot hold (`refusal`).
No collective is captured. With several processes the graph ends with each one's gradients; what follows it is a dozen
launches: all keys gathered, gradients averaged in one all-reduce, optimiser, queue. Nothing then hides the all-reduce,
and from three processes on gradients are summed in another order than in DDP's buckets: equal but for rounding.
Rules of torch's notes on CUDA graphs that this rests on: warm up on a side stream, capture there; gradients are None
when the capture begins; memory is the graph's own; nothing waits for the device or draws random numbers.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bingo.config import TrainingConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.files import first_line
from bingo.kernels.ring import write_keys
from bingo.train.inputs import Buffers, Inputs
from bingo.train.shares import Method, PendingKeys, Result, accumulate, backward, seed_of
from bingo.train.spans import span
from bingo.views.loader import Batch

log = logging.getLogger(__name__)
Choice = Literal["auto", "yes", "no"]
Work = Callable[[], None]

WARM_UP = 2
"""Steps before the first that is timed: kernels are compiled, libraries choose theirs."""
HOST_BOUND = 1.1
"""Times the device's time that the host's must be for a graph to be made: below, launches hide behind kernels."""
CYCLES_PER_SECOND = 2e9
"""Of a GPU, roughly: how long it is kept busy while the host runs ahead."""


class Times(NamedTuple):
    """Seconds of one step: the host's to launch it, and the device's where no launch is late."""

    host: float
    device: float


class Recorder(Protocol):
    """What holds a step."""

    def warm(self, work: Work) -> None:
        """Run as it will be captured."""

    def host_seconds(self, work: Work) -> float:
        """Run, and say what the host needs to launch it."""

    def device_seconds(self, work: Work, ahead: float) -> float:
        """Run, and say what the device needs. ahead: seconds that the host runs ahead of it."""

    def capture(self, work: Work) -> None:
        """Hold what `work` launches, without running it. RuntimeError where that cannot be."""

    def replay(self) -> None:
        """Run what is held."""


class CudaRecorder:
    """A CUDA graph, warmed up and captured on one side stream, launched on the caller's."""

    def __init__(self, device: torch.device) -> None:
        self.side = torch.cuda.Stream(device)
        self.graph: Any = None

    def warm(self, work: Work) -> None:
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            work()
        torch.cuda.current_stream().wait_stream(self.side)

    def host_seconds(self, work: Work) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        self.warm(work)
        return time.perf_counter() - began

    def device_seconds(self, work: Work, ahead: float) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def timed() -> None:
            torch.cuda._sleep(int(ahead * CYCLES_PER_SECOND))
            start.record()
            work()
            end.record()

        self.warm(timed)
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000

    def capture(self, work: Work) -> None:
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: DALI and the writer of checkpoints go on in threads of their own, and may allocate.
        with torch.cuda.graph(self.graph, stream=self.side, capture_error_mode="thread_local"):
            work()

    def replay(self) -> None:
        self.graph.replay()


class CallRecorder:
    """The same function called again on the same buffers: what a graph computes, on any device."""

    def __init__(self) -> None:
        self.work: Work | None = None

    def warm(self, work: Work) -> None:
        work()

    def host_seconds(self, work: Work) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def device_seconds(self, work: Work, ahead: float) -> float:
        return self.host_seconds(work)

    def capture(self, work: Work) -> None:
        self.work = work

    def replay(self) -> None:
        assert self.work is not None
        self.work()


class EagerStep:
    """Loss, gradients, optimiser and what the method does after it, one launch after the other."""

    def __init__(self, method: Method, optimiser: torch.optim.Optimizer, device: torch.device) -> None:
        self.method, self.optimiser, self.device = method, optimiser, device

    def __call__(self, shares: Sequence[Batch], rate: float, seed: int, *, measure: bool) -> Result:
        """Train on a step's shares. rate: learning rate; seed: see `backward`, whose result is returned."""
        self.set_rate(rate)
        self.optimiser.zero_grad(set_to_none=True)
        found = backward(self.method, shares, seed, measure=measure)
        with span("optimiser"):
            self.optimiser.step()
        with span("after step"):
            self.method.after_step()
        return found

    def set_rate(self, rate: float) -> None:
        # On a GPU in fp32, as a graph reads it from a tensor: steps of both kinds must be equal to the last bit.
        rate = rate if self.device.type == "cpu" else float(torch.tensor(rate, dtype=torch.float32))
        for group in self.optimiser.param_groups:
            group["lr"] = rate


class GraphedStep:
    """As `EagerStep`, bit for bit, by a recorder's work on buffers; eager where it cannot be, and says so once.

    auto: whether two timed steps decide that it is worth it.
    """

    def __init__(self, eager: EagerStep, recorder: Recorder, world: World, *, auto: bool) -> None:
        self.eager, self.recorder, self.world, self.auto = eager, recorder, world, auto
        self.method, self.optimiser, device = eager.method, eager.optimiser, eager.device
        self.buffers = Buffers(self.method.feed.config, self.method.feed.dtype, device)
        self.rate = torch.zeros((), device=device)
        self.loss = self.rate
        self.inputs: list[Inputs] = []
        self.keys: Tensor | None = None
        """What this process has for the queues of all, of several processes."""
        self.grads: list[Tensor] = []
        self.done = 0
        self.host = 0.0
        self.held: tuple[int, ...] | None = None
        """Where the weights lay at the capture; None before it."""
        self.given_up = False

    def __call__(self, shares: Sequence[Batch], rate: float, seed: int, *, measure: bool) -> Result:
        if measure or self.given_up:
            return self.eager(shares, rate, seed, measure=measure)
        self.inputs = self.method.prepare(shares, self.buffers)
        self.rate.fill_(rate)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        torch.manual_seed(seed_of(seed, shares[0]))
        self._run()
        if self.world.size > 1:
            self._join()
        return self.loss.clone(), None

    def _run(self) -> None:
        """A step on what is in the buffers."""
        self.done += 1
        if self.done <= WARM_UP:
            self._watched()
        elif self.auto and self.done == WARM_UP + 1:
            self.host = self.recorder.host_seconds(self._step)
        elif self.auto and self.done == WARM_UP + 2:
            self._judge(Times(self.host, self.recorder.device_seconds(self._step, 2 * self.host)))
        elif self._ready():
            self.recorder.replay()
        else:
            self._step()

    def _step(self) -> None:
        """What is held: a whole step, or of several processes as far as each can go alone."""
        self.optimiser.zero_grad(set_to_none=True)
        alone = self.world.size == 1
        gather = self.method.gather
        self.method.gather = gather if alone else self._keep
        try:
            self.loss, _ = accumulate(self.method, self.method.losses_of(self.inputs), [None], travel=alone)
        finally:
            self.method.gather = gather
        if alone:
            self.optimiser.step()
            self.method.after_step()
        else:
            self.grads = [parameter.grad for parameter in self._trained() if parameter.grad is not None]

    def _keep(self, keys: Tensor) -> PendingKeys:
        """Stands for a gather inside a graph: the loss then leaves the queue as it is."""
        self.keys = keys
        return lambda: None

    @torch.no_grad()
    def _join(self) -> None:
        """The rest of a step of several processes. It is the same for a graph's gradients and for others."""
        pending = None if self.keys is None else self.method.gather(self.keys)
        flat = torch.cat([grad.reshape(-1) for grad in self.grads]).mul_(1 / self.world.size)
        dist.all_reduce(flat)
        parts = flat.split([grad.numel() for grad in self.grads])
        # Into the gradients' own memory: the next replay writes there whatever the weights point to by then.
        torch._foreach_copy_(self.grads, [part.view(grad.shape) for part, grad in zip(parts, self.grads, strict=True)])
        for parameter, grad in zip(self._trained(), self.grads, strict=True):
            parameter.grad = grad
        self.optimiser.step()
        if pending is not None and (keys := pending()) is not None:
            queue = self.method.queue
            write_keys(queue.keys_KC, queue.ids_K, queue.entry(keys, self.inputs[-1].ids))
        self.method.after_step()

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimiser.param_groups for parameter in group["params"]]

    def _watched(self) -> None:
        """A warm-up step, which gives the graph up if it draws random numbers: a replay would need their state."""
        before = _generators(self.eager.device)
        self.recorder.warm(self._step)
        if any(not torch.equal(a, b) for a, b in zip(before, _generators(self.eager.device), strict=True)):
            self._give_up("the network draws random numbers (dropout)")

    def _judge(self, times: Times) -> None:
        """Give the graph up where the device is the bound: of several processes the slowest."""
        times = Times(*map(max, zip(*self.world.everyone(times), strict=True)))
        said = f"{1000 * times.host:.1f} ms to launch a step, {1000 * times.device:.1f} ms on the device"
        self.given_up = times.host < HOST_BOUND * times.device
        if self.world.main:
            log.info("steps %s: %s", "run eagerly" if self.given_up else "become a CUDA graph", said)

    def _ready(self) -> bool:
        """Whether there is a graph of the weights where they lie now; makes one if need be."""
        places = tuple(tensor.data_ptr() for tensor in self._state())
        if self.held != places:
            why = ""
            try:
                self.recorder.capture(self._step)
            except RuntimeError as error:
                why = first_line(error)
            if whys := [why for why in self.world.everyone(why) if why]:  # all or none: their collectives differ
                self._give_up(whys[0])
                return False
            self.held = places
        return True

    def _state(self) -> list[Tensor]:
        modules = self.method.modules().values()
        return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]

    def _give_up(self, why: str) -> None:
        self.given_up = True
        if self.world.main:
            log.warning("the step is no CUDA graph: %s; steps run eagerly, as with --runtime.graph no", why)


def _generators(device: torch.device) -> list[Tensor]:
    """The states of the generators that a step on this device could draw from."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def refusal(method: Method, world: World) -> str:
    """Why no step of this run can be captured; empty where it can."""
    if world.device.type != "cuda":
        return "it needs a GPU"
    if world.shares > 1:
        return "a process plays several ranks"
    return method.uncaptured


def check_graph(config: TrainingConfig, method: Method, world: World) -> None:
    """`UserError` where a graph is asked for and cannot be."""
    why = refusal(method, world)
    if config.runtime.graph == "yes" and why:
        raise UserError(f"runtime.graph=yes cannot be here: {why}; leave --runtime.graph out")


def make_step(
    config: TrainingConfig, method: Method, optimiser: torch.optim.Optimizer, world: World
) -> EagerStep | GraphedStep:
    """What the loop calls for each step, by `runtime.graph`."""
    check_graph(config, method, world)
    eager = EagerStep(method, optimiser, world.device)
    if config.runtime.graph == "no" or refusal(method, world):
        return eager
    return GraphedStep(eager, CudaRecorder(world.device), world, auto=config.runtime.graph == "auto")
