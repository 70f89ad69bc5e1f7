"""Where ranks find each other before there is work: a store that all have reached, or one sentence for all of them.

While a rank waits it hears the signals that ask it to leave, and one that leaves or refuses takes the others with it.
"""

import contextlib
import queue
import socket
import threading
import time
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist

from bingo.errors import PeerError, TransientError, UserError
from bingo.variables import Place
from bingo.watch import Leaving, Watch

POLL_S = 0.05
TRY_S = 5.0
"""Seconds for one attempt to reach rank 0, or one question to it: signals wait for so long at most."""
LINGER_S = 2.0
GO, LEAVE = "go", "leave "


def meet(place: Place, watch: Watch, limit_s: float) -> dist.Store:
    """Wait until all ranks are here; what they meet at is kept in rank 0's process, or torchrun's.

    Raises `Leaving` when any rank was asked to leave meanwhile; `PeerError` when ranks do not come within `limit_s`
    seconds; `UserError` when two ranks contradict each other or the address is wrong.
    """
    over, began = time.monotonic() + limit_s, time.monotonic()
    store = _connect(place, watch, over)
    try:
        decision = _agree(place, dist.PrefixStore(f"bingo/{place.start}", store), watch, over, began)
    except RuntimeError as error:  # DistNetworkError and others of the store's
        raise PeerError(f"lost {_rank_0(place)} before all {place.size} ranks had come: {_line(error)}") from error
    if decision == GO:
        store.set_timeout(timedelta(seconds=limit_s))
        return dist.PrefixStore(f"group/{place.start}", store)
    if decision.startswith(LEAVE):
        watch.asked = watch.asked or decision.removeprefix(LEAVE)
        _leave(watch)
    raise (PeerError if "timed out" in decision else UserError)(decision)


def _connect(place: Place, watch: Watch, over: float) -> dist.TCPStore:
    """The store at MASTER_ADDR:MASTER_PORT; rank 0 makes it."""
    try:
        socket.getaddrinfo(place.address, place.port)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
        later = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        raise (TransientError if later else UserError)(
            f"MASTER_ADDR={place.address!r} cannot be found ({_line(error)}); it must be the host name or address of "
            "RANK=0, 127.0.0.1 on one machine"
        ) from error
    if place.rank == 0 and not place.agent:
        try:  # from here it is reached for sure; whether others reach MASTER_ADDR, they will say
            return dist.TCPStore("127.0.0.1", place.port, None, True, timedelta(seconds=TRY_S), wait_for_workers=False)
        except RuntimeError as error:
            raise TransientError(
                f"RANK=0 cannot listen on MASTER_PORT={place.port}: {_line(error)}; "
                "end the program that has it, or give all ranks another MASTER_PORT"
            ) from error
    told, reached = ["not yet"], queue.SimpleQueue[dist.TCPStore]()
    # Beside this thread, which hears signals: torch waits without end for an answer of what is no store.
    threading.Thread(target=_reach, args=(place, over, told, reached), daemon=True).start()
    while True:
        if watch.asked:
            _leave(watch)
        with contextlib.suppress(queue.Empty):
            return reached.get(timeout=POLL_S)
        if time.monotonic() > over:
            raise PeerError(
                f"RANK={place.rank} timed out: {_rank_0(place)} did not answer ({told[0]}); start it, or correct "
                "MASTER_ADDR and MASTER_PORT"
            )


def _reach(place: Place, over: float, told: list[str], reached: "queue.SimpleQueue[dist.TCPStore]") -> None:
    """Try to reach rank 0 until the time is over; told: why it has not been possible yet."""
    while time.monotonic() < over:
        try:
            with socket.create_connection((place.address, place.port), timeout=TRY_S):
                told[0] = "another program listens there"  # if the next line never ends
            patience = timedelta(seconds=TRY_S)
            reached.put(dist.TCPStore(place.address, place.port, None, False, patience, wait_for_workers=False))
            break
        except (OSError, RuntimeError) as error:
            told[0] = _line(error)
        time.sleep(POLL_S)


def _agree(place: Place, store: dist.Store, watch: Watch, over: float, began: float) -> str:
    """What all ranks do, which the first one to know it decides: GO, LEAVE and a signal, or a sentence why not."""
    come = store.add("come", 1)
    size = store.compare_set("size", "", str(place.size)).decode()

    def decide(what: str) -> None:
        store.compare_set("decision", "", what)

    if size != str(place.size):
        decide(
            f"the ranks do not agree: WORLD_SIZE={place.size} of RANK={place.rank}, but {size} of another one; "
            "give all the same"
        )
    elif store.add(f"rank/{place.rank}", 1) > 1:
        decide(f"two processes are RANK={place.rank} of WORLD_SIZE={place.size}; give each a number of its own")
    elif come == place.size:
        decide(GO)
    while not store.check(["decision"]):
        if watch.asked:
            decide(f"{LEAVE}{watch.asked}")
        elif time.monotonic() > over:
            missing = [rank for rank in range(place.size) if not store.check([f"rank/{rank}"])]
            decide(
                f"timed out: after {time.monotonic() - began:.0f} s {place.size - len(missing)} of {place.size} ranks "
                f"have come to {place.address}:{place.port}, not RANK={_few(missing)}; start these too, with the same "
                "MASTER_ADDR and MASTER_PORT, or give the right WORLD_SIZE"
            )
        time.sleep(POLL_S)
    decision = store.get("decision").decode()
    store.add("heard", 1)
    if decision != GO and place.rank == 0 and not place.agent:
        end = time.monotonic() + LINGER_S  # the store ends with this process
        while store.add("heard", 0) < store.add("come", 0) and time.monotonic() < end:
            time.sleep(POLL_S)
    return decision


def _leave(watch: Watch) -> NoReturn:
    watch.event("left", step=None, signal=watch.asked)
    raise Leaving(f"left before it had started because of {watch.asked}")


def _rank_0(place: Place) -> str:
    return f"RANK=0 at MASTER_ADDR={place.address}, MASTER_PORT={place.port}"


def _few(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")


def _line(error: Exception) -> str:
    """The cause in a few words: the system's, where one is named in what torch says over several lines."""
    text = getattr(error, "strerror", None) or str(error)
    for reason in ("address already in use", "permission denied", "connection refused", "timed out"):
        if reason in text.lower():
            return reason
    return text.partition("\n")[0].partition(". Exception raised")[0] or type(error).__name__
