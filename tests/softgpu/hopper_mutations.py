"""Edits of the Hopper kernel: its ring, its asynchronous products, its masks, its registers."""

from tests.softgpu.planting import Edit, Mutation

PRODUCER_WAITS = "        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)\n"
WAIT_FOR_SUM = "            mean = warpgroup_mma_wait(0, (adding,))\n"
HAND_BACK = "            mbarrier.arrive(empty.index((i - 1) % STAGES))\n"
LAYOUT = "gl.NVMMASharedLayout(swizzle_byte_width=64, element_bitwidth=16, rank=2)"


def of(
    name: str, *edits: Edit, case: str = "hopper", right: bool = False, quick: bool = False, compiles: bool = True
) -> Mutation:
    return Mutation(name, "hopper_kernel", case, edits, right, quick, compiles)


HOPPER = (
    of("the producer does not wait for `empty`", (PRODUCER_WAITS, ""), quick=True),
    of("the producer waits for the wrong parity", ("((i // STAGES) & 1) ^ 1)", "(i // STAGES) & 1)")),
    of(
        "consumers wait for the wrong parity",
        ("(i // STAGES) & 1, pred=i < tiles", "((i // STAGES) & 1) ^ 1, pred=i < tiles"),
    ),
    of("no fence after mbarrier.init", ("    fence_async_shared()\n    if E == 0", "    if E == 0"), quick=True),
    of("a consumer hands back the next stage", (HAND_BACK, "            mbarrier.arrive(empty.index(i % STAGES))\n")),
    of(
        "a consumer hands back before it waits for wgmma",
        (WAIT_FOR_SUM, HAND_BACK + WAIT_FOR_SUM.replace("mean", "mean ")),
        ("none of them still reads the stage.\n" + HAND_BACK, "none of them still reads the stage.\n"),
        quick=True,
    ),
    of("the wait for the sum leaves one group", (WAIT_FOR_SUM, WAIT_FOR_SUM.replace("wait(0", "wait(1"))),
    of("scores are read with two groups in flight", ("wait(1, (started,))", "wait(2, (started,))")),
    of("a consumer does not wait for tile i + 1", ("        wait_for_tile(full, i + 1, tiles)\n", "")),
    of("half of the bytes are expected", ("queue.block_type.nbytes)", "queue.block_type.nbytes // 2)")),
    of("twice the bytes are expected", ("queue.block_type.nbytes)", "queue.block_type.nbytes * 2)")),
    of("`empty` counts one consumer", ("empty.index(stage), count=CONSUMERS", "empty.index(stage), count=1")),
    of("`empty` counts three consumers", ("empty.index(stage), count=CONSUMERS", "empty.index(stage), count=3")),
    of("two stages", ("STAGES = gl.constexpr(4)", "STAGES = gl.constexpr(2)")),
    of("a wait for the tile past the last", ("pred=i < tiles", "pred=i <= tiles")),
    of(
        "the weighted sum of the wrong stage",
        ("operand, ring.index((i - 1) % STAGES), mean", "operand, ring.index(i % STAGES), mean"),
    ),
    of("the producer copies the next tile's keys", ("[first_key + i * ring", "[first_key + (i + 1) * ring")),
    of(
        "the producer copies into the next stage",
        ("full.index(stage), ring.index(stage))", "full.index(stage), ring.index((stage + 1) % STAGES))"),
    ),
    of("both consumers take the same rows", ("row + ROWS, ", "row, ")),
    of(
        "means are stored past the last row",
        ("values, mask=within(rows, cols, live_rows, C, BC))", "values)"),
    ),
    of("queries are loaded past the last row", ("live_rows, C, BC)\n    q", "live_rows + 64, C, BC)\n    q")),
    of("ring and map have different swizzles", ("KEYS, BC], queue.layout)", f"KEYS, BC], {LAYOUT})"), compiles=False),
    of("sums are stored past the last row", ("gl.log2(total), mask=rows < live_rows)", "gl.log2(total))")),
    of("scores are summed, not weights", ("  sums += sum_in_threads(weights)", "  sums += sum_in_threads(scores)")),
    of(
        "excluded ids of the first tile",
        ("ids, i, row, E, s_layout)", "ids, 0, row, E, s_layout)"),
        case="hopper, ids",
    ),
    of("excluded ids of the other consumer", ("groups = (row + gl", "groups = (gl"), case="hopper, ids", quick=True),
    of("a row without any key", ("if E > 0:  # of", "if E < 0:  # of"), case="hopper, dead rows"),
    of(
        "both consumers' queries in one room",
        ("consume, (q_ptr, q_room.index(1), row", "consume, (q_ptr, q_room.index(0), row"),
        case="hopper, ids",
    ),
    of(
        "the compiler puts in the fence between queries and product",  # `mutate_ptx` deletes it from its code
        ("        fence_async_shared()\n        q = q_room", "        q = q_room"),
        case="hopper, ids",
        right=True,
    ),
    of("no barrier before the loop", ("        tl.debug_barrier()\n", "        pass\n"), right=True),
    of("three stages", ("STAGES = gl.constexpr(4)", "STAGES = gl.constexpr(3)"), right=True, quick=True),
    of(
        "a swizzle of 64 bytes in ring and map",
        ("gl.NVMMASharedLayout.get_default_for(list(queue_tile(channels)), kind)", LAYOUT),
        right=True,
    ),
    # Triton gives the first partition what is left of the registers, so no more are asked for than there are.
    of("registers for one consumer from the other", ("constexpr(240)", "constexpr(248)"), right=True),
    of("five stages", ("STAGES = gl.constexpr(4)", "STAGES = gl.constexpr(5)"), right=True),
)  # fmt: skip
