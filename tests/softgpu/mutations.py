"""Wrong edits of every kernel's source that a test must notice, and right ones that it must accept.

A program, too: `python -m tests.softgpu.mutations` tries all of them, or those with one of the words that it is given
in the name of their module or their own.
"""

import sys
import time

from tests.softgpu.cases import Case
from tests.softgpu.hopper_mutations import HOPPER
from tests.softgpu.planting import Mutation, noticed

SPLIT = {"family": "softmax", "impl": "triton", "channels": 64}
HOPPER_CASE = SPLIT | {"impl": "hopper", "arch": 90, "rows": 70, "keys": 1280, "channels": 128, "splits": 1}
SHORT = SPLIT | {"rows": 40, "splits": 2}
BAG = {"family": "bag", "impl": "triton", "arch": 80, "channels": 48, "keys": 130, "batch": 3, "views": 2,
       "positives": 2, "new": 140, "excluded_ids": 1, "normalize": True, "q_dtype": "fp32"}  # fmt: skip
CASES: dict[str, Case] = {
    "hopper": HOPPER_CASE,
    "hopper, ids": HOPPER_CASE | {"excluded_ids": 3, "groups": 70, "channels": 64},
    "hopper, dead rows": HOPPER_CASE | {"keys": 128, "excluded_ids": 1, "groups": 70, "channels": 64, "one_id": True},
    "ragged": SHORT | {"arch": 80, "keys": 300},
    "copied": SHORT | {"arch": 90, "keys": 300},
    "maximum": SHORT | {"arch": 100, "keys": 300, "temperature": 0.012},
    "excluded": SHORT | {"arch": 80, "keys": 300, "excluded_ids": 3, "groups": 7},
    "values": SHORT | {"arch": 90, "keys": 300, "values": True},
    "without a key": SPLIT | {"arch": 80, "rows": 40, "keys": 1, "excluded_ids": 9, "groups": 40, "temperature": 0.012},
    "repair": SHORT | {"arch": 90, "keys": 130, "channels": 16, "dtype": "fp16", "length": 4.0, "unit_rows": False},
    "bag": BAG,
    "few keys": BAG | {"keys": 2, "new": 0},
    "ring": BAG | {"keys": 30, "new": 25, "excluded_ids": 0, "channels": 64, "dtype": "fp16"},
    "ranks": SPLIT | {"family": "ranks", "arch": 90, "rows": 70, "keys": 200, "positives": 2, "excluded_ids": 2},
    "nearest": {"family": "nearest", "arch": 90, "queries": 70, "rows": 300, "channels": 70, "k": 13, "dtype": "bf16"},
}


def of(module: str, case: str, name: str, old: str, new: str, right: bool = False, quick: bool = False) -> Mutation:
    return Mutation(name, module, case, ((old, new),), right, quick)


PORTABLE = "triton_queue_softmax"
SPLIT_EDITS = (
    of(PORTABLE, "copied", "keys past the last count", '        z = tl.where(live[None, :], z, -float("inf"))\n',
       "        z = z\n", quick=True),
    of(PORTABLE, "ragged", "a ragged tile is loaded unmasked", "mask=live[:, None] & (cols[None, :] < C), other=0.0",
       "mask=live[:, None] | (cols[None, :] < C), other=0.0", quick=True),
    of(PORTABLE, "ragged", "splits lie R + 1 apart", "slots = split.to(tl.int64) * R + rows",
       "slots = split.to(tl.int64) * (R + 1) + rows"),
    of(PORTABLE, "ragged", "a split begins a tile late", "begin = split * keys_per_split",
       "begin = split * keys_per_split + BN"),
    of(PORTABLE, "ragged", "a split ends where the next does", "tl.minimum(begin + keys_per_split, K)\n    if REPAIR",
       "tl.minimum(begin + 2 * keys_per_split, K)\n    if REPAIR"),
    of(PORTABLE, "ragged", "the sum of weights starts anew in every tile", "total += row_sums(weights, BN)",
       "total = row_sums(weights, BN)"),
    of(PORTABLE, "ragged", "queries are loaded unmasked",
       "row_mask = (rows < R)[:, None] & (cols < C)[None, :]\n    q =",
       "row_mask = (rows < R)[:, None] & (cols < C)[None, :]\n    row_mask = row_mask | (rows >= R)[:, None]\n    q ="),
    of(PORTABLE, "ragged", "split: means are stored past the last row", "mask=row_mask & stored[:, None])",
       "mask=stored[:, None] | (cols < C)[None, :])"),
    of(PORTABLE, "maximum", "the sum is not rescaled to the larger maximum", "total = total * shrink +",
       "total = total +", quick=True),
    of(PORTABLE, "maximum", "the mean is not rescaled to the larger maximum", "mean * shrink[:, None], input",
       "mean, input"),
    of(PORTABLE, "maximum", "the maximum is left out of the log-sum-exp", "shift + tl.log2(total)", "tl.log2(total)"),
    of(PORTABLE, "maximum", "the scale is forgotten where queries are not scaled", "z = z * scale", "z = z * 1.0"),
    of(PORTABLE, "without a key", "-inf less -inf", 'finite = tl.where(larger == -float("inf"), 0.0, larger)',
       "finite = larger", quick=True),
    of(PORTABLE, "without a key", "a mean over no weight", "mean / tl.where(total == 0.0, 1.0, total)[:, None]",
       "mean / total[:, None]"),
    of(PORTABLE, "excluded", "ids of another group", "(rows % G) * E + e", "rows % G + e"),
    of(PORTABLE, "excluded", "the last id only", "found = found | (", "found = ("),
    of(PORTABLE, "values", "keys are averaged in place of values", "v = n if values is None else load_tile(values,",
       "v = n if values is None else load_tile(queue,"),
    of(PORTABLE, "repair", "too long rows are not repaired", "(lse > high)", "(lse > 8 * high)"),
    of(PORTABLE, "ragged", "tiles of 32 keys", "keys=128 if arch >= 90 else 64, warps=4", "keys=32, warps=4",
       right=True, quick=True),
    of(PORTABLE, "copied", "one stage more", "stages=3 if 90 <= arch < 100 else 2)", "stages=4)", right=True),
    of(PORTABLE, "copied", "eight warps", "warps=4, stages=3 if", "warps=8, stages=3 if", right=True),
)  # fmt: skip
RANK_EDITS = (
    of(PORTABLE, "ranks", "ranks: keys past the last count",
       'tl.where(live[None, :], tl.dot(q, tl.trans(n), input_precision="ieee"), -float("inf"))',
       'tl.dot(q, tl.trans(n), input_precision="ieee")'),
    of(PORTABLE, "ranks", "ranks: scores are loaded unmasked", ', mask=rows < R, other=float("inf"))', ")"),
    of(PORTABLE, "ranks", "ranks: a count is stored, not added", "tl.atomic_add(counts_ptr", "tl.store(counts_ptr"),
    of(PORTABLE, "ranks", "ranks: splits overlap", "begin = tl.program_id(1) * keys_per_split",
       "begin = tl.program_id(1) * BN"),
    of(PORTABLE, "ranks", "ranks: counts of rows past the last", "tl.int32), 1), mask=rows < R)",
       "tl.int32), 1), mask=rows < R + 1)"),
    of(PORTABLE, "ranks", "ranks: as good is as rare as better", "(z > score[:, None])", "(z >= score[:, None])",
       right=True),
)  # fmt: skip
ENDS = "triton_combine"
END_EDITS = (
    of(ENDS, "ragged", "combine: splits lie R + 1 apart", "R + row\n        weights", "(R + 1) + row\n        weights",
       quick=True),
    of(ENDS, "ragged", "combine: a split too many", "mask = (splits < S)[:, None]", "mask = (splits < S + 1)[:, None]"),
    of(ENDS, "without a key", "combine: -inf less -inf",
       'largest = tl.where(largest == -float("inf"), 0.0, largest)', "largest = largest"),
    of(ENDS, "ragged", "combine: a base-2 logarithm", "lse * LN2)\n    if GRAD", "lse)\n    if GRAD"),
    of(ENDS, "ragged", "combine: sixteen splits at a time, eight are as good", "SPLITS_PER_STEP = 16",
       "SPLITS_PER_STEP = 8", right=True),
    of(ENDS, "bag", "bag: positives of another image", "((row % B) * M + m)", "(row * M + m)", quick=True),
    of(ENDS, "bag", "bag: weights of another view", "row // rows_per_weight * M + m", "row % rows_per_weight * M + m"),
    of(ENDS, "bag", "bag: the gradient keeps what only makes rows longer", "grad = (grad - along * q) /",
       "grad = grad /"),
    of(ENDS, "bag", "bag: the gradient of padded channels is stored", "+ row * C + cols, grad, mask=cols < C)",
       "+ row * C + cols, grad)"),
    of(ENDS, "few keys", "bag: the series where it does not hold", "small < 0.015625", "small < 1.5"),
    of(ENDS, "ring", "ring: no turn at the end", "slot = (start + skipped + new) % K", "slot = start + skipped + new"),
    of(ENDS, "bag", "ring: skipped keys are counted twice", "slot = (start + skipped + new) % K",
       "slot = (start + 2 * skipped + new) % K"),
    of(ENDS, "bag", "ring: ids one slot on", "queue_ids_ptr + slot,", "queue_ids_ptr + (slot + 1) % K,"),
    of(ENDS, "ring", "ring: the cursor moves too early", "== N - 1", "== 0", quick=True),
    of(ENDS, "ring", "ring: the count is not set back", "            tl.store(cursor_ptr + 1, 0)\n", ""),
    of(ENDS, "ring", "ring: no barrier before the count", "        tl.debug_barrier()\n", "", quick=True),
    of(ENDS, "ring", "ring: the count is no atomic", "tl.atomic_add(cursor_ptr + 1, 1) == N - 1",
       "tl.load(cursor_ptr + 1) == N - 1"),
)  # fmt: skip
KNN = "triton_knn"
NEAREST_EDITS = (
    of(KNN, "nearest", "nearest: the query's own row is taken", " & (at[None, :] != own[:, None])", "", quick=True),
    of(KNN, "nearest", "nearest: rows past the last are taken", "(at < N)[None, :] & (at[None", "(at[None"),
    of(KNN, "nearest", "nearest: empty places are alike", " + (places + (NEVER - K))[None, :]", " + NEVER"),
    of(KNN, "nearest", "nearest: the best is not struck out",
       'scores = tl.where(at[None, :] == best_at[:, None], -float("inf"), scores)', "scores = scores"),
    of(KNN, "nearest", "nearest: the second tile has the first one's rows", "take_best(right, at + BN, own",
       "take_best(right, at, own"),
    of(KNN, "nearest", "nearest: lists past the last query are stored", "kept, mask=(rows < Q)[:, None])",
       "kept, mask=(rows < Q + 1)[:, None])"),
    of(KNN, "nearest", "nearest: channels past the last", "mask=(cols < D)[None, :]", "mask=(cols < D + 8)[None, :]"),
    of(KNN, "nearest", "nearest: chunks of 32 channels", "else 64, 64, 8, 3)", "else 64, 32, 8, 3)", right=True),
)  # fmt: skip
ALL = (*HOPPER, *SPLIT_EDITS, *RANK_EDITS, *END_EDITS, *NEAREST_EDITS)


def main(words: list[str]) -> int:
    """0 if every wrong edit is noticed and every right one accepted."""
    chosen = [m for m in ALL if not words or any(word in f"{m.module} {m.name}" for word in words)]
    wrong = []
    for mutation in chosen:
        start = time.process_time()
        seen = noticed(mutation, CASES[mutation.case])
        if bool(seen) == mutation.right:
            wrong.append(mutation.name)
        outcome = f"noticed, {seen}" if seen else "accepted"
        print(f"{time.process_time() - start:5.1f} s  {mutation.name}: {outcome}", flush=True)
    print(f"{len(chosen)} edits, judged wrongly: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
