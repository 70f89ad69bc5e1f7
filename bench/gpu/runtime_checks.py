"""How the ops behave on a GPU: repeatable, capturable, never waiting; compiled; in a step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bingo.bench.gpu.bag_checks import make_bag
from bingo.bench.gpu.checks import (
    LOST,
    ROUNDOFF,
    Outcome,
    Setting,
    Skip,
    T,
    allowed,
    far,
    need_cuda,
    no_waiting,
    unit,
    worst,
)
from bingo.bench.step import main as bench_step
from bingo.bench.step.variants import BASE, Changes, StepShape
from bingo.kernels import NewKeys, bag_loss, queue_logsumexp, queue_ranks, queue_softmax

REPEATS = 200
BIG_KEYS = 2**24 + 128
BIG_BYTES = 16e9
SLEEP_CYCLES = 100_000_000


class RingStep:
    """Loss, gradient and ring write on tensors that stay where they are, as a captured step needs them."""

    def __init__(self, s: Setting, batch: int, views: int, keys: int, channels: int) -> None:
        self.setting = s
        self.q, self.keys, self.weights, queue = make_bag(s, batch, views, keys, channels)
        self.queue = queue.to(s.dtype)
        self.new = unit(s, batch, channels, seed=9, dtype=torch.float32)
        self.cursor = torch.tensor([keys - batch - batch // 2, 0], device=s.device)  # the second step wraps around

    def __call__(self) -> tuple[Tensor, Tensor]:
        loss = bag_loss(
            self.q, self.keys, self.weights, self.queue, T, normalize=True, unit_rows=True, impl=self.setting.impl,
            new_keys=NewKeys(self.new, self.cursor),
        )  # fmt: skip
        (grad,) = torch.autograd.grad(loss.sum(), self.q)
        return loss.detach(), grad

    def tensors(self) -> tuple[Tensor, ...]:
        """All that a step reads or writes."""
        return self.q, self.keys, self.weights, self.queue, self.new, self.cursor

    def take(self, other: "RingStep") -> None:
        """Copy the other's inputs and state."""
        with torch.no_grad():
            for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
                mine.copy_(theirs)

    def renew(self, seed: int) -> None:
        """Other queries and new keys in the same memory."""
        with torch.no_grad():
            self.q.copy_(unit(self.setting, *self.q.shape, seed=seed, dtype=torch.float32) * (1 + seed % 3))
            self.new.copy_(unit(self.setting, *self.new.shape, seed=seed + 1, dtype=torch.float32))


def repeats(s: Setting, rows: int, keys: int, channels: int) -> Outcome:
    """Bitwise equal outputs of many equal calls; the error is how many differ from the first."""
    bag = make_bag(s, rows, 1, keys, channels)
    queue = bag.queue.to(s.dtype)

    def call() -> tuple[Tensor, ...]:
        loss = bag_loss(bag.q, bag.keys, bag.weights, queue, T, normalize=True, unit_rows=True, impl=s.impl)
        lse, mean = queue_softmax(bag.q.detach(), queue, T, impl=s.impl)
        return loss.detach(), torch.autograd.grad(loss.sum(), bag.q)[0], lse, mean

    with allowed(s, keys, channels, T):
        first = call()
    assert all(tensor.isfinite().all() for tensor in first), "an output is not finite"
    differ = torch.zeros((), dtype=torch.int64, device=s.device)
    times = 3 if s.quick else REPEATS
    for _ in range(times - 1):
        differ += torch.stack([(a != b).any() for a, b in zip(first, call(), strict=True)]).any()
    return Outcome(differ.item(), 0, f"of {times} calls differ")


def graph(s: Setting, batch: int, keys: int, channels: int) -> Outcome:
    """A captured step replayed on changing inputs equals eager steps bit for bit, and its cursor moves on."""
    need_cuda(s)
    eager, captured = (RingStep(s, batch, 3, keys, channels) for _ in range(2))
    start = int(eager.cursor[0])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), allowed(s, keys, channels, T):
        for _ in range(3):
            captured()
    torch.cuda.current_stream().wait_stream(side)
    captured.take(eager)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        outputs = captured()
    assert captured.cursor.tolist() == [start, 0], "capturing itself moved the cursor"
    wrong = []
    for replay in range(4):
        eager.renew(50 + replay)
        captured.renew(50 + replay)
        recording.replay()
        expected = eager()
        pairs = [*zip(outputs, expected, strict=True), (captured.queue, eager.queue), (captured.cursor, eager.cursor)]
        names = ("loss", "gradient", "queue", "cursor")
        wrong += [f"{n} of replay {replay}" for n, (a, b) in zip(names, pairs, strict=True) if not torch.equal(a, b)]
        place = [(start + (replay + 1) * batch) % keys, 0]
        assert captured.cursor.tolist() == place, f"cursor is {captured.cursor.tolist()}, not {place}"
    return Outcome(len(wrong), 0, f"differ from eager: {', '.join(wrong)}" if wrong else "bitwise equal to eager")


def follows_stream(s: Setting, rows: int, keys: int, channels: int) -> Outcome:
    """On a stream whose inputs arrive late: a launch on any other stream would read the old ones."""
    need_cuda(s)
    queue = unit(s, keys, channels, seed=1)
    late = unit(s, rows, channels, seed=0)
    q = torch.zeros_like(late)
    with allowed(s, keys, channels, T):
        expected = queue_softmax(late, queue, T, impl=s.impl)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(SLEEP_CYCLES)
        q.copy_(late)
        found = queue_softmax(q, queue, T, impl=s.impl)
    torch.cuda.synchronize()
    return worst(*((n, far(a, b), 1e-30) for n, a, b in zip(("lse", "mean key"), found, expected, strict=True)))


def never_waits(s: Setting, batch: int, keys: int, channels: int) -> Outcome:
    """No op makes the host wait, forwards or backwards, with a ring write or excluded ids."""
    need_cuda(s)
    step = RingStep(s, batch, 3, keys, channels)
    q, ids = step.q.detach(), torch.arange(keys, device=s.device)
    exclude, scores = ids[:2].view(1, 2).contiguous(), q[:, :2].contiguous()

    def calls() -> None:
        step()
        queue_softmax(q, step.queue, T, impl=s.impl)
        if s.impl != "hopper":
            queue_softmax(q, step.queue, T, impl=s.impl, exclude=exclude, queue_ids=ids)
        queue_logsumexp(q, step.queue, T, impl=s.impl, unit_rows=True)
        queue_ranks(q, step.queue, scores, impl=s.impl)

    with allowed(s, keys, channels, T):
        calls()
    torch.cuda.synchronize()
    with no_waiting():
        calls()
    return Outcome(0, 0, "no wait seen")


def long_queue(s: Setting) -> Outcome:
    """K * C beyond 2^31: the last keys are found by queries equal to them, and a write wraps around the end."""
    need_cuda(s)
    if torch.cuda.mem_get_info(s.device)[0] < BIG_BYTES:
        raise Skip(f"needs {BIG_BYTES / 1e9:.0f} GB of free memory")
    temperature, channels = 0.05, 128
    queue = torch.empty(BIG_KEYS, channels, device=s.device, dtype=s.dtype)
    for number, part in enumerate(queue.split(2**21)):
        part.copy_(unit(s, *part.shape, seed=number))
    which = torch.tensor([BIG_KEYS - 1, BIG_KEYS // 2 + 7, 3], device=s.device)
    q = queue[which]
    with allowed(s, BIG_KEYS, channels, temperature):
        lse, mean = queue_softmax(q, queue, temperature, impl=s.impl, unit_rows=True)
    parts = [torch.logsumexp(q.double() @ part.double().T / temperature, 1) for part in queue.split(2**21)]
    exact = torch.logsumexp(torch.stack(parts), 0)
    new = unit(s, 4, channels, seed=99)
    cursor = torch.tensor([BIG_KEYS - 2, 0], device=s.device)
    bag = make_bag(s, 3, 1, 1, channels)
    bag_loss(
        bag.q.detach(), bag.keys, bag.weights, queue, T, normalize=True, unit_rows=True, impl=s.impl,
        new_keys=NewKeys(new, cursor),
    )  # fmt: skip
    assert torch.equal(torch.cat([queue[-2:], queue[:2]]), new), "the write around the end of the ring is wrong"
    assert cursor.tolist() == [2, 0], f"cursor is {cursor.tolist()}, not [2, 0]"
    lost = 1 - (mean * q.float()).sum(1).min().item()
    bound = 0.02 + 5 * ROUNDOFF[s.dtype] / (temperature * math.sqrt(channels))
    return worst(("1 - mean key . key", lost, LOST), ("lse", far(lse, exact), bound))


def compiles(s: Setting, batch: int, keys: int, channels: int) -> Outcome:
    """torch.compile of loss, gradient and ring write as one graph, two steps, against eager ones."""
    eager, traced = (RingStep(s, batch, 3, keys, channels) for _ in range(2))

    def loss(q: Tensor, bag_keys: Tensor, weights: Tensor, queue: Tensor, new: Tensor, cursor: Tensor) -> Tensor:
        return bag_loss(
            q, bag_keys, weights, queue, T, normalize=True, unit_rows=True, impl=s.impl, new_keys=NewKeys(new, cursor)
        ).mean()

    def run(function: Callable[..., Tensor], step: RingStep) -> tuple[Tensor, Tensor]:
        value = function(step.q, step.keys, step.weights, step.queue, step.new, step.cursor)
        return value.detach(), torch.autograd.grad(value, step.q)[0]

    torch.compiler.reset()
    backend = "inductor" if s.device.type == "cuda" else "aot_eager"
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    parts = []
    for number in range(2):
        with allowed(s, keys, channels, T):  # a refusal inside a compiled function is an error of the compiler's
            b, slope_b = run(loss, eager)
        a, slope_a = run(compiled, traced)
        parts += [(f"loss of step {number}", far(a, b), 1e-5), (f"dq of step {number}", far(slope_a, slope_b), 1e-6)]
        assert torch.equal(traced.queue, eager.queue), f"the compiled step {number} left another queue"
        assert torch.equal(traced.cursor, eager.cursor), f"the compiled step {number} left another cursor"
    return worst(*parts)


def toy_shape(s: Setting) -> StepShape:
    """A distillation step that starts in a second."""
    batch, queue, dim = (8, 128, 32) if s.device.type == "cpu" else (16, 512, 64)
    return StepShape(s.device, "tiny-4", "tiny-8", 32, batch, queue, dim, 32, samples=1, burst=1, impl=s.impl)


def step_loss(s: Setting, changes: Changes) -> Outcome:
    """The first step's loss against the release-style step's, which has another random queue."""
    shape = toy_shape(s)
    plan, batches = bench_step.make_batches(shape, bench_step.make_config(shape, Changes()))
    base, ours = (
        bench_step.build(name, chosen, shape, batches, plan) for name, chosen in ((BASE, Changes()), ("ours", changes))
    )
    with allowed(s, shape.queue, shape.dim, T):
        losses = [runner.step().item() for runner in (base, ours)]
        later = [ours.step().item() for _ in range(3)]
    assert all(map(math.isfinite, later)), f"the next losses are {later}"
    return Outcome(
        abs(losses[1] / losses[0] - 1), bench_step.LOSS_GATE, "relative difference to the release-style loss"
    )


def step_never_waits(s: Setting, changes: Changes) -> Outcome:
    """A whole step (augmentation, networks, loss, optimiser, queue) never makes the host wait."""
    need_cuda(s)
    shape = toy_shape(s)
    plan, batches = bench_step.make_batches(shape, bench_step.make_config(shape, Changes()))
    runner = bench_step.build("ours", changes, shape, batches, plan)
    with allowed(s, shape.queue, shape.dim, T):
        for _ in range(len(batches) + 1):
            runner.step()
    torch.cuda.synchronize()
    with no_waiting():
        for _ in range(len(batches)):
            runner.step()
    return Outcome(0, 0, "no wait seen")
