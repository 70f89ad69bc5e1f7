"""Every specialisation of every Triton kernel that a launch would ask for: the table of `aot.py`.

To add a kernel or a specialisation, add a `Variant` to `portable_variants`, `augment_variants` or `hopper_variants`.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch

from bingo.kernels import hopper_queue_softmax as hopper
from bingo.kernels import triton_augment as augment
from bingo.kernels import triton_combine as ends
from bingo.kernels import triton_knn as knn
from bingo.kernels import triton_queue_softmax as kernels

TYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
LOOP_LIMIT = 250
# Triton keeps an operand that it computed (the scaled queries) in registers and reloads it for every tile: 8
# instructions more than for one that it only loaded. The Hopper kernel avoids them.
PORTABLE_LOOP_LIMIT = 256
# Values are waited for and handed back as the keys are, in every turn.
VALUES_LOOP_LIMIT = 280
# Half of a multiprocessor's threads at the least: the augmentation hides the memory's latency with other warps.
AUGMENT_REGISTERS = 64
# The unit of `loop_per_tile`: the products of 64 rows and 128 keys, shared by four warps.
TILE_ROWS, TILE_KEYS, TILE_WARPS = 64, 128, 4


@dataclass(frozen=True)
class Variant:
    """One specialisation of a kernel, as a launch would ask for it.

    dtype: the queue's (the partials' or images' for a kernel that reads no queue). signature: run-time arguments in
    order, with their Triton types. tile: rows and keys of one turn of the hot loop, where its instructions do not say
    (see `aot.Loop`). products: matrix products per tile. matrices: tiles that a turn brings from memory. loop_limit:
    the most that `loop_per_tile` may be on sm_90. register_limit: the most per thread.
    """

    kernel: str
    name: str
    dtype: str
    channels: int
    function: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    warps: int
    stages: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    tile: tuple[int, int] = (0, 0)
    products: int = 0
    matrices: int = 1
    loop_limit: int | None = None
    register_limit: int = 255


def portable_variants(arch: int) -> list[Variant]:
    """Those of the portable kernels."""
    pairs = itertools.product((64, 128, 256), TYPE_NAMES)
    plain = [_split("gradient", dtype, channels, arch) for channels, dtype in pairs]
    padded = _split("48 of 64 channels", torch.bfloat16, 64, arch, C=48)
    main = [
        _split(name, dtype, 128, arch, **changes) for dtype in TYPE_NAMES for name, changes in SPECIAL_SPLITS.items()
    ]
    values = [
        _split(name, dtype, channels, arch, values=True, **changes)
        for (name, dtype, channels), changes in VALUES_SPLITS.items()
    ]
    last = [end for channels in (64, 128, 256) for end in (_combine(channels), _bag(channels))]
    lists = [_nearest(dtype, places, arch, 2048) for dtype in TYPE_NAMES for places in (16, 32)]
    lists.append(_nearest(torch.float16, 16, arch, 1000))
    return [
        *plain,
        padded,
        *main,
        *values,
        _ranks(arch),
        *last,
        _combine(128, GRAD=False),
        _bag(128, **NOTHING_MORE),
        *lists,
    ]


SPECIAL_SPLITS: dict[str, dict[str, Any]] = {
    "gradient, raw fp32 rows": {"q_dtype": torch.float32, "NORMALIZE": True},
    "loss only": {"GRAD": False},
    "ragged": {"EVEN": False},
    "running maximum": {"SAFE": True},
    "repair, ragged": {"SAFE": True, "REPAIR": True, "EVEN": False},
    "6 excluded ids": {"E": 6},
    "6 excluded ids, running maximum, ragged": {"E": 6, "SAFE": True, "EVEN": False},
    "loss only, 3 excluded ids, ragged": {"E": 3, "GRAD": False, "EVEN": False},
}

VALUES_SPLITS: dict[tuple[str, torch.dtype, int], dict[str, Any]] = {
    ("values", torch.float32, 64): {},
    ("values", torch.float32, 128): {},
    ("values", torch.bfloat16, 64): {},
    ("values", torch.bfloat16, 128): {},
    ("values, running maximum, ragged", torch.bfloat16, 128): {"SAFE": True, "EVEN": False},
}


def _split(
    name: str,
    dtype: torch.dtype,
    channels: int,
    arch: int,
    q_dtype: torch.dtype | None = None,
    values: bool = False,
    **changes: Any,
) -> Variant:
    constants: dict[str, Any] = {
        "E": 0,
        "GRAD": True,
        "NORMALIZE": False,
        "SAFE": False,
        "REPAIR": False,
        "EVEN": True,
    } | changes
    busy = bool(constants["E"] or constants["SAFE"])
    tile = kernels.choose_tile(dtype, channels, arch, busy=busy, values=values)
    half = dtype != torch.float32
    tma = arch >= 90 and half
    queue = f"tensordesc<{TYPE_NAMES[dtype]}[{tile.keys},{channels}]>" if tma else f"*{TYPE_NAMES[dtype]}"
    signature = {"q_ptr": f"*{TYPE_NAMES[q_dtype or dtype]}", "queue": queue, "values": queue} | SPLIT_ARGUMENTS
    constants = {"C": channels, "BC": channels, "BM": tile.rows, "BN": tile.keys, "TMA": tma} | constants
    if not constants["E"]:
        constants |= {"queue_ids_ptr": None, "exclude_ptr": None}
    if not values:
        constants["values"] = None
    limit = VALUES_LOOP_LIMIT if values else PORTABLE_LOOP_LIMIT
    return Variant(
        "split", name, TYPE_NAMES[dtype], channels, kernels.split_kernel, signature, constants, tile.warps, tile.stages,
        tile=(tile.rows, tile.keys), products=1 + constants["GRAD"],
        matrices=1 + values, loop_limit=limit if half and channels <= 128 and not busy and constants["EVEN"] else None,
    )  # fmt: skip


SPLIT_ARGUMENTS = {
    **dict.fromkeys(("queue_ids_ptr", "exclude_ptr"), "*i64"),
    **dict.fromkeys(("lse_ptr", "mean_ptr"), "*fp32"),
    **dict.fromkeys(("R", "K", "G", "keys_per_split"), "i32"),
    **dict.fromkeys(("scale", "low", "high"), "fp32"),
}


def _ranks(arch: int) -> Variant:
    tile = kernels.choose_tile(torch.bfloat16, 128, arch, busy=True)
    signature = {
        **dict.fromkeys(("q_ptr", "queue"), "*bf16"),
        **dict.fromkeys(("queue_ids_ptr", "exclude_ptr"), "*i64"),
        "scores_ptr": "*fp32",
        "counts_ptr": "*i32",
        **dict.fromkeys(("R", "K", "G", "keys_per_split"), "i32"),
    }
    constants = {"C": 128, "BC": 128, "BM": tile.rows, "BN": tile.keys, "E": 6, "M": 2}
    return Variant(
        "ranks", "6 excluded ids", "bf16", 128, kernels.rank_kernel, signature, constants, tile.warps, tile.stages,
        tile=(tile.rows, tile.keys), products=1,
    )  # fmt: skip


def _nearest(dtype: torch.dtype, places: int, arch: int, channels: int) -> Variant:
    tile = knn.choose_tile(dtype, places, arch)
    signature = {
        **dict.fromkeys(("q_ptr", "database_ptr"), f"*{TYPE_NAMES[dtype]}"),
        "exclude_ptr": "*i32",
        "scores_ptr": "*fp32",
        "indices_ptr": "*i32",
        **dict.fromkeys(("Q", "N"), "i32"),
    }
    constants = {"D": channels, "BM": tile.queries, "BN": tile.rows, "BD": tile.channels, "K": places}
    return Variant(
        "nearest", f"best {places}, {channels} channels", TYPE_NAMES[dtype], tile.channels, knn.nearest_kernel,
        signature, constants, tile.warps, tile.stages, tile=(tile.queries, 2 * tile.rows), products=1,
    )  # fmt: skip


def _combine(channels: int, **changes: Any) -> Variant:
    pointers = dict.fromkeys(("lse_SR_ptr", "mean_SRC_ptr", "lse_ptr", "mean_ptr"), "*fp32")
    constants = {"C": channels, "BC": channels, "BS": ends.SPLITS_PER_STEP, "GRAD": True} | changes
    signature = pointers | {"R": "i32", "S": "i32"}
    name = "gradient" if constants["GRAD"] else "loss only"
    return Variant(
        "combine", name, "fp32", channels, ends.combine_kernel, signature, constants, ends.WARPS,
        options=_beside_warps(ends.OPTIONS),
    )  # fmt: skip


NOTHING_MORE: dict[str, Any] = {
    **dict.fromkeys(("GRAD", "NORMALIZE", "WRITE", "IDS"), False),
    **dict.fromkeys(("new_keys_ptr", "new_ids_ptr", "queue_ids_ptr", "cursor_ptr"), None),
}


def _bag(channels: int, **changes: Any) -> Variant:
    floats = ("lse_SR_ptr", "mean_SRC_ptr", "q_ptr", "keys_ptr", "weights_ptr", "loss_ptr", "grad_ptr", "new_keys_ptr")
    signature = {
        **dict.fromkeys(floats, "*fp32"),
        "new_ids_ptr": "*i64",
        "queue_ptr": "*bf16",
        **dict.fromkeys(("queue_ids_ptr", "cursor_ptr"), "*i64"),
        **dict.fromkeys(("R", "S", "B", "rows_per_weight", "K", "N", "skipped"), "i32"),
        "inverse_temperature": "fp32",
    }
    flags = dict.fromkeys(("GRAD", "NORMALIZE", "WRITE", "IDS"), True)
    sizes: dict[str, Any] = {"C": channels, "BC": channels, "BS": ends.SPLITS_PER_STEP, "M": 2}
    constants = sizes | flags | changes
    name = "gradient, ring write" if constants["WRITE"] else "loss only"
    return Variant(
        "bag", name, "fp32", channels, ends.bag_kernel, signature, constants, ends.WARPS,
        options=_beside_warps(ends.OPTIONS),
    )  # fmt: skip


def _beside_warps(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not name.startswith("num_")}


def augment_variants() -> list[Variant]:
    """Those of the augmentation chain and CutMix, for every dtype of the views."""
    found = [_augment("luma", augment.luma_kernel, {}, PIXELS=augment.PIXELS)]
    tile: dict[str, Any] = {"T": 23, "ROWS": augment.ROWS, "COLUMNS": augment.COLUMNS}
    found.append(_augment("blur rows", augment.blur_rows_kernel, {"levels_ptr": "*u8", "blurred_ptr": "*fp32"}, **tile))
    for dtype in TYPE_NAMES.values():
        name, out = f"{dtype} views", {"out_ptr": f"*{dtype}"}
        colour = {"levels_ptr": "*u8", **out}
        found.append(_augment("colour", augment.colour_kernel, colour, name, PIXELS=augment.PIXELS))
        columns = {"blurred_ptr": "*fp32", **out}
        found.append(_augment("blur columns", augment.blur_columns_kernel, columns, name, **tile))
        for last in (True, False):
            memory: dict[str, Any] = {"C": 3, "CHANNELS_LAST": last, "SIZE": augment.PIXELS}
            pointers = dict.fromkeys(("a_ptr", "b_ptr", "out_ptr"), f"*{dtype}")
            name = f"{dtype} views, {'channels last' if last else 'planes'}"
            found.append(_augment("cutmix", augment.cutmix_kernel, pointers, name, **memory))
    return found


def _augment(kernel: str, function: Any, pointers: dict[str, str], name: str = "", **constants: Any) -> Variant:
    """Types of the other arguments follow from their names."""
    if kernel != "cutmix":
        constants["STRIDE"] = augment.TAPS.value + 23
    known = {"images_ptr": "*u8", "params_ptr": "*i32", "floats_ptr": "*fp32", **pointers}
    names = [name for name in function.arg_names if name not in constants]
    signature = {name: known.get(name, "fp32" if name.startswith(("mean_", "std_")) else "i32") for name in names}
    return Variant(
        kernel, name, "uint8", 3, function, signature, constants, augment.WARPS,
        options=_beside_warps(augment.OPTIONS), register_limit=AUGMENT_REGISTERS,
    )  # fmt: skip


def hopper_variants() -> list[Variant]:
    """Those of the Hopper kernel; none where Triton has no Gluon."""
    if not hopper.has_gluon():
        return []
    half = torch.bfloat16, torch.float16
    plain = [(channels, dtype, grad) for channels in (64, 128, 256) for dtype in half for grad in (True, False)]
    raw = [(channels, dtype) for channels in (64, 128) for dtype in half]
    return [
        *(_hopper(dtype, channels, dtype, GRAD=grad) for channels, dtype, grad in plain),
        *(_hopper(dtype, channels, torch.float32) for channels, dtype in raw),
        _hopper(torch.bfloat16, 128, torch.float32, GRAD=False),
        _hopper(torch.bfloat16, 256, torch.float32, C=192),
        *(_hopper(torch.bfloat16, channels, torch.bfloat16, E=6) for channels in (64, 128)),
        _hopper(torch.float16, 128, torch.float32, E=6),
        _hopper(torch.bfloat16, 128, torch.bfloat16, E=6, GRAD=False),
    ]


def _hopper(queue_dtype: torch.dtype, channels: int, q_dtype: torch.dtype, **changes: Any) -> Variant:
    """fp32 rows are compiled with the normalisation, rows in the queue's dtype without."""
    from bingo.kernels import hopper_kernel

    normalize = q_dtype == torch.float32
    constants: dict[str, Any] = {"C": channels, "E": 0, "NORMALIZE": normalize, "GRAD": True} | changes
    excluded, grad = constants["E"], constants["GRAD"]
    name = ("gradient" if grad else "loss only") + (", raw fp32 rows" if normalize else "")
    name += f", {excluded} excluded ids" if excluded else ""
    name += f", {constants['C']} of {channels} channels" if constants["C"] != channels else ""
    keys, padded = hopper_kernel.queue_tile(channels)
    queue = f"tensordesc<{TYPE_NAMES[queue_dtype]}[{keys},{padded}]"
    signature = {
        "q_ptr": f"*{TYPE_NAMES[q_dtype]}",
        "queue": f"{queue},{hopper_kernel.queue_layout(queue_dtype, channels)!r}>",
        **SPLIT_ARGUMENTS,
    }
    del signature["low"], signature["high"]
    if not excluded:
        constants |= {"queue_ids_ptr": None, "exclude_ptr": None}
    options = hopper.launch_options()
    return Variant(
        "hopper", name, TYPE_NAMES[queue_dtype], channels, hopper_kernel.partials_kernel, signature, constants,
        options.pop("num_warps"), options=options, tile=(TILE_ROWS, TILE_KEYS), products=2 if grad else 1,
        loop_limit=LOOP_LIMIT if channels <= 128 and not excluded else None,
    )  # fmt: skip
