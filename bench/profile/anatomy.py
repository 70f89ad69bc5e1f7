"""Where the time of profiled steps goes, from the events of a trace.

Host time of a part is that of its named range on the training's thread without the ranges inside it; `other` is the
rest of the step. GPU time of a part is that of the kernels that were launched while the host was in it, autograd's
thread included. `exposed communication`: collectives that ran while nothing else did; on a CPU an upper bound, of those
that ran in parts that wait for other ranks while no operation did. `launch gaps`: from the first to the last kernel of
a step, the time in which the GPU did nothing. A step that is replayed as one CUDA graph has one
launch, so that its kernels all count where that is; whole steps, gaps and communication stay right.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bingo.bench.profile.trace import Event, clipped, length, outside, self_times, union
from bingo.errors import UserError
from bingo.train.spans import PARTS, PREFIX, STEP

OTHER, EXPOSED, GAPS, WHOLE = "other", "exposed communication", "launch gaps", "whole step"
AWAITING = ("teacher", "loss", "backward", "after step")
"""Parts in which a step may wait for other ranks; what goes on in the background elsewhere holds nobody up."""
KERNELS = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")
COLLECTIVE = ("nccl", "gloo", "c10d")


@dataclass(frozen=True)
class Anatomy:
    """Seconds, a value per step, by part; `gpu` is empty without one. top: (operation, seconds per step, calls per
    step), the longest first, kernels on a GPU and operations without those inside them on a CPU."""

    host: dict[str, list[float]]
    gpu: dict[str, list[float]]
    top: list[tuple[str, float, float]]


def anatomy(events: Sequence[Event]) -> Anatomy:
    """events: see `read_trace`. `UserError` where no step of a training is among them."""
    steps = [event for event in events if event.kind == "user_annotation" and event.name.startswith(STEP)]
    if not steps:
        raise UserError("the trace holds no step of a training; profile one by `bingo bench profile`")
    kernels = [event for event in events if event.kind in KERNELS]
    launched = {event.id: event.start for event in events if event.kind in LAUNCHES}
    host, gpu = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for step in steps:
        inside = [event for event in events if step.start <= event.start and event.end <= step.end]
        spans = [e for e in inside if e.kind == "user_annotation" and e.name.removeprefix(PREFIX) in PARTS]
        for part, seconds in _host(step, spans, inside, on_gpu=bool(kernels)):
            host[part].append(seconds)
        if kernels:
            of_step = [k for k in kernels if step.start <= launched.get(k.id, k.start) < step.end]
            for part, seconds in _gpu(spans, of_step, launched):
                gpu[part].append(seconds)
    counted = kernels or [event for event in events if event.kind == "cpu_op"]
    return Anatomy(dict(host), dict(gpu), _top(counted, len(steps), bool(kernels)))


def _host(step: Event, spans: Sequence[Event], inside: Sequence[Event], *, on_gpu: bool) -> Iterator[tuple[str, float]]:
    times: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for event, own in self_times([span for span in spans if span.thread == step.thread]):
        times[event.name.removeprefix(PREFIX)] += own / 1e6
    whole = (step.end - step.start) / 1e6
    yield from times.items()
    yield OTHER, whole - sum(times.values())
    if not on_gpu:
        operations = [event for event in inside if event.kind == "cpu_op"]
        waits = [(span.start, span.end) for span in spans if span.name.removeprefix(PREFIX) in AWAITING]
        named = [event for event in inside if event.kind in ("cpu_op", "user_annotation")]
        collectives = clipped([(event.start, event.end) for event in named if _is_collective(event)], waits)
        work = [(e.start, e.end) for e in operations if e.name.startswith("aten::")]
        yield EXPOSED, outside(collectives, work) / 1e6
    yield WHOLE, whole


def _gpu(spans: Sequence[Event], kernels: Sequence[Event], launched: dict[int, float]) -> Iterator[tuple[str, float]]:
    times: dict[str, float] = dict.fromkeys((*PARTS, OTHER), 0.0)
    collectives = [k for k in kernels if _is_collective(k)]
    work = [k for k in kernels if not _is_collective(k)]
    for kernel in work:
        at = launched.get(kernel.id, kernel.start)
        around = [span for span in spans if span.start <= at < span.end]
        innermost = max(around, key=lambda span: span.start, default=None)
        times[innermost.name.removeprefix(PREFIX) if innermost else OTHER] += (kernel.end - kernel.start) / 1e6
    yield from times.items()
    busy = union((k.start, k.end) for k in kernels)
    whole = busy[-1][1] - busy[0][0] if busy else 0.0
    yield EXPOSED, outside([(k.start, k.end) for k in collectives], [(k.start, k.end) for k in work]) / 1e6
    yield GAPS, (whole - length(busy)) / 1e6
    yield WHOLE, whole / 1e6


def _is_collective(event: Event) -> bool:
    return event.name.lower().startswith(COLLECTIVE)


def _top(events: Sequence[Event], steps: int, whole: bool) -> list[tuple[str, float, float]]:
    """whole: times as they are, since kernels lie in no other."""
    times = [(e, e.end - e.start) for e in events] if whole else self_times(events)
    seconds, calls = defaultdict[str, float](float), defaultdict[str, int](int)
    for event, own in times:
        seconds[event.name] += own / 1e6
        calls[event.name] += 1
    ranked = sorted(seconds, key=lambda name: -seconds[name])
    return [(name, seconds[name] / steps, calls[name] / steps) for name in ranked]
