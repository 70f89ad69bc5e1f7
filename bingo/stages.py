"""Stages: a config in, a folder out, recognised as done by content hashes of what went in and came out.

A finished stage is skipped, one with other settings is refused or run again, a damaged output is noticed; see
`bingo.identity`. A folder has one writer at a time. No torch is imported here.
"""

import importlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo.config import (
    BagsConfig,
    DemoDataConfig,
    DistillConfig,
    EvalConfig,
    ExportConfig,
    FeaturesConfig,
    KeysConfig,
    PackConfig,
    PretrainConfig,
)
from bingo.config_json import from_json, to_json, to_record
from bingo.config_parts import Runtime
from bingo.errors import UserError, did_you_mean
from bingo.files import (
    BEGUN,
    BY_PRODUCTS,
    LOCK,
    RECORD,
    clear_folder,
    folder_lock,
    hash_json,
    make_folder,
    remove_tree,
    sweep_temporaries,
    write_json,
    write_sealed,
)
from bingo.identity import (
    Identity,
    difference,
    identify,
    in_words,
    output_hashes,
    read_record,
)
from bingo.inputs import CONFIG, HOLDS
from bingo.watch import Watch

if TYPE_CHECKING:
    from bingo.distributed import World


@dataclass(frozen=True)
class Kind:
    """A kind of stage: its config class and the module whose `run(config, key, world)` does the work.

    resumable: it continues after a kill, from what is in its folder; distributed: every rank takes part.
    """

    config: type
    module: str
    resumable: bool = False
    distributed: bool = False


KINDS = {
    "demo-data": Kind(DemoDataConfig, "bingo.images.demo_data"),
    "pack": Kind(PackConfig, "bingo.images.pack"),
    "pretrain": Kind(PretrainConfig, "bingo.train.pretrain", resumable=True, distributed=True),
    "features": Kind(FeaturesConfig, "bingo.features.extract", resumable=True, distributed=True),
    "bags": Kind(BagsConfig, "bingo.bags.stage", distributed=True),
    "keys": Kind(KeysConfig, "bingo.features.keys", resumable=True, distributed=True),
    "distill": Kind(DistillConfig, "bingo.train.distill", resumable=True, distributed=True),
    "eval": Kind(EvalConfig, "bingo.evaluate.stage", distributed=True),
    "export": Kind(ExportConfig, "bingo.evaluate.export"),
}


PLACED = ("demo-data", "pack")
"""Kinds that look themselves at what a folder without a record holds."""


@dataclass(frozen=True)
class Stage:
    """One stage of a chain: a name for people, a kind, and its settings."""

    name: str
    kind: str
    config: Any

    @property
    def out(self) -> Path:
        return self.config.out

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "config": to_json(self.config)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Stage":
        if value["kind"] not in KINDS:
            raise UserError(f"stage kind {value['kind']!r} is unknown; {did_you_mean(value['kind'], KINDS)}")
        return Stage(
            value["name"], value["kind"], from_json(KINDS[value["kind"]].config, value["config"], value["name"])
        )


def stage_key(stage: Stage) -> str:
    """What the stage is recognised by, see `bingo.identity`."""
    return identify(stage.kind, stage.config).key


def finished(stage: Stage, key: str) -> dict[str, Any] | None:
    """The stage's record if it is done with exactly these settings and inputs and its outputs are as they were."""
    if not (stage.out / RECORD).exists():
        return None
    record = read_record(stage.out)
    if record["key"] != key or "outputs" not in record:
        return None
    return None if any(difference(stage.out / name, entry) for name, entry in record["files"].items()) else record


def run_stage(
    stage: Stage,
    *,
    world: "World | None" = None,
    watch: Watch | None = None,
    replace: bool = False,
    patience_s: float = 0,
) -> dict[str, Any]:
    """Run a stage unless it is done; returns its record with `skipped` set.

    watch: what hears and tells where no `world` is given, whose own does so otherwise. Raises `Leaving` when a rank was
    asked to leave; the same call then goes on where it stopped.
    replace: what another key left in the output folder is deleted first; otherwise that is a `UserError`.
    patience_s: how long to wait while another process holds the folder (an earlier attempt that is not dead yet).
    """
    watch = world.watch if world else watch or Watch()
    identity = identify(stage.kind, stage.config)
    if record := finished(stage, identity.key):
        watch.event("finished", name=stage.name, skipped=True)
        return {**record, "skipped": True}
    with _world(stage, world, watch) as peers:
        peers.barrier()  # every rank has looked at the old record before rank 0 touches it
        if peers.leaving(now=True):
            peers.leave(0, f"before the stage {stage.name}")
        watch.event("stage", name=stage.name)
        with _writer(stage, peers, patience_s):
            # Who held the folder while we waited may have done this very stage.
            record = finished(stage, identity.key) if peers.main else None
            skipped = peers.main_says(record is not None)
            record = _run(stage, identity, peers, replace) if not skipped else record or read_record(stage.out)
    watch.event("finished", name=stage.name, skipped=skipped)
    return {**record, "skipped": skipped}


def _run(stage: Stage, identity: Identity, peers: "World", replace: bool) -> dict[str, Any]:
    kind = KINDS[stage.kind]
    begun = _prepare(stage, identity, replace) if peers.main else ""
    peers.barrier()
    began = time.perf_counter()
    alone = not kind.distributed  # then rank 0 does it for all
    run = importlib.import_module(kind.module).run
    figures = run(stage.config, identity.key, peers) if peers.main or not alone else {}
    peers.barrier()
    record = {
        "name": stage.name,
        **identity.to_json(),
        "config": begun,
        "seconds": round(time.perf_counter() - began, 2),
        "ranks": figures.pop("ranks", peers.ranks),
        "figures": figures,
    }
    if peers.main:
        files = output_hashes(stage.out)
        outputs = {name: entry["hash"] for name, entry in files.items()}
        write_sealed(stage.out / RECORD, {**record, "outputs": outputs, "files": files})
    peers.barrier()
    return record


@contextmanager
def _writer(stage: Stage, peers: "World", patience_s: float) -> Iterator[None]:
    """Rank 0 holds the stage's folder: two commands never write one folder together.

    What a killed writer left half-written is deleted. A refused run leaves no folder behind that was not there before
    and holds no work.
    """
    if not peers.main:
        yield
        return
    fresh = not stage.out.exists()
    make_folder(stage.out)
    with folder_lock(stage.out, patience_s):
        sweep_temporaries(stage.out)
        sweep_temporaries(stage.out / "checkpoints")
        try:
            yield
        except UserError:
            if fresh and not _holds_work(stage.out):
                remove_tree(stage.out)
            elif not (stage.out / RECORD).exists():  # a folder of others
                (stage.out / LOCK).unlink(missing_ok=True)
            raise


def _holds_work(out: Path) -> bool:
    """Whether there is more in a folder than what every stage puts into it when it starts."""
    metrics = out / "metrics.jsonl"
    more = {path.name for path in out.iterdir()} - {LOCK, *BEGUN, metrics.name}
    return bool(more) or (metrics.exists() and metrics.stat().st_size > 0)


def _world(stage: Stage, world: "World | None", watch: Watch) -> "AbstractContextManager[World]":
    if world is not None:
        return nullcontext(world)
    from bingo.distributed import world as join

    return join(getattr(stage.config, "runtime", Runtime()), watch)


def _prepare(stage: Stage, identity: Identity, replace: bool) -> str:
    """Refuse or clear what a folder holds of another stage, and write down what this one is.

    From its first second a folder says what it is; a killed run knows that it may go on, and nobody reads half of it.
    Returns the hash of its config.json.
    """
    out = stage.out
    record = read_record(out) if (out / RECORD).exists() else None
    # What a resumable stage goes on from says itself what it is of: such a folder may have lost its record.
    known = stage.kind in PLACED or (KINDS[stage.kind].resumable and (out / CONFIG).exists())
    if record is None and not replace and not known and (foreign := _visible(out)):
        raise UserError(f"{out} holds {foreign[0]!r} and no stage of bingo; choose a new or empty folder for --out")
    if record is not None and record["key"] != identity.key:
        abandoned = "outputs" not in record and not KINDS[stage.kind].resumable and not _visible(out)
        if not (replace or (abandoned and record["kind"] == stage.kind)):
            raise UserError(f"{out} holds {_whose(record, identity)}; choose another --out or delete that folder")
        if replace:
            clear_folder(out)
    from bingo.environment import environment_record

    config = to_record(stage.kind, stage.config)
    content = hash_json(config)
    write_json(out / CONFIG, config)
    write_json(out / "environment.json", environment_record())
    write_sealed(out / RECORD, {"name": stage.name, **identity.to_json(), "config": content})
    return content


def _visible(out: Path) -> list[str]:
    """Names in a folder but hidden ones and by-products of stages."""
    return sorted(path.name for path in out.iterdir() if path.name[0] != "." and path.name not in BY_PRODUCTS)


def _whose(record: dict[str, Any], identity: Identity) -> str:
    """What a folder holds in place of this stage, in words."""
    theirs = HOLDS.get(record["kind"], repr(record["kind"]))
    if record["kind"] != identity.kind:
        return f"{theirs}, not {HOLDS[identity.kind]}"
    return f"{theirs} made with {'; '.join(in_words(record, identity))}"
