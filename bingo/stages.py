"""Stages: a config in, a folder out, recognised as done by content hashes of what went in and came out.

A stage's key is the hash of its kind, its settings and the content of its inputs. `stage.json` in the output folder
holds the key and the hash of every output, so a finished stage is skipped, a changed one is run again, and a damaged
output is noticed. No torch is imported here: recognising a finished chain takes a fraction of a second.
"""

import dataclasses
import importlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo import __version__
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
from bingo.config_json import from_json, to_json
from bingo.config_parts import Runtime
from bingo.errors import UserError, did_you_mean
from bingo.files import (
    RECORD,
    clear_folder,
    folder_lock,
    hash_file,
    hash_json,
    make_folder,
    read_json,
    remove_tree,
    write_json,
)
from bingo.watch import Watch

if TYPE_CHECKING:
    from bingo.distributed import World

# Logs and checkpoints are by-products: they differ between an interrupted and an uninterrupted run.
BY_PRODUCTS = ("checkpoints", RECORD, "config.json", "environment.json", "metrics.jsonl")


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
    """Hash of kind, version, settings and input contents; the output's place and the machine do not enter."""
    settings = to_json(stage.config)
    settings.pop("out")
    settings.pop("workers", None)
    runtime = getattr(stage.config, "runtime", None)
    if isinstance(runtime, Runtime):
        settings["runtime"] = {"precision": runtime.precision}
    if "loader" in settings:
        settings["loader"] = {"fancy_upsampling": stage.config.loader.fancy_upsampling}
    for field, value in input_paths(stage.config).items():
        _set(settings, field, source_hash(value) if field == "source" else input_hash(value))
    return hash_json({"kind": stage.kind, "version": __version__, "settings": settings})


def input_paths(config: Any, prefix: str = "") -> dict[str, Path]:
    """Dotted field name -> path, for every path in a config but its output."""
    found: dict[str, Path] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= input_paths(value, f"{prefix}{field.name}.")
        elif isinstance(value, Path) and prefix + field.name != "out":
            found[prefix + field.name] = value
    return found


def _set(settings: dict[str, Any], dotted: str, value: str) -> None:
    *parents, leaf = dotted.split(".")
    for name in parents:
        settings = settings[name]
    settings[leaf] = value


def source_hash(source: Path) -> str:
    """Hash of images that are to be packed: what the stage that wrote them recorded, or their listing."""
    if (source / RECORD).exists():
        return input_hash(source)
    from bingo.images.sources import fingerprint

    return fingerprint(source)


def input_hash(path: Path) -> str:
    """Hash of an input: a stage's recorded outputs, a file's bytes, or a folder's listing (names, sizes, times)."""
    if not path.exists():
        raise UserError(f"input {path} does not exist; run the stage that makes it first")
    if path.is_file():
        return hash_file(path)
    if (path / RECORD).exists():
        record = read_json(path / RECORD)
        if "outputs" not in record:
            raise UserError(f"input {path} is a {record.get('kind', 'stage')} that is not finished; run it to its end")
        return hash_json(record["outputs"])
    if (path / "index.npz").exists():
        return hash_file(path / "index.npz")
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return hash_json([[str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns] for p in files])


def output_hashes(out: Path, previous: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Relative name -> {hash, size, time} of a stage's output files; unchanged size and time keep the known hash.

    Another stage's folder inside (an evaluation in its run's) is that stage's.
    """
    found = {}
    nested = {record.parent for record in out.rglob(RECORD)} - {out}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out).as_posix()
        if name.split("/")[0] in BY_PRODUCTS or path.name.startswith(".") or nested.intersection(path.parents):
            continue
        size, mtime = path.stat().st_size, path.stat().st_mtime_ns
        known = previous.get(name)
        trusted = known is not None and (known["size"], known["mtime"]) == (size, mtime)
        found[name] = {"hash": known["hash"] if known and trusted else hash_file(path), "size": size, "mtime": mtime}
    return found


def finished(stage: Stage, key: str) -> dict[str, Any] | None:
    """The stage's record if it is done with exactly these settings and inputs and its outputs are as they were."""
    if not (stage.out / RECORD).exists():
        return None
    record = read_json(stage.out / RECORD)
    if record.get("key") != key or "outputs" not in record:
        return None
    now = output_hashes(stage.out, record["files"])
    return record if {name: entry["hash"] for name, entry in now.items()} == record["outputs"] else None


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
    key = stage_key(stage)
    if record := finished(stage, key):
        watch.event("finished", name=stage.name, skipped=True)
        return {**record, "skipped": True}
    kind = KINDS[stage.kind]
    with _world(stage, world, watch) as peers:
        peers.barrier()  # every rank has looked at the old record before rank 0 touches it
        if peers.leaving(now=True):
            peers.leave(0, f"before the stage {stage.name}")
        watch.event("stage", name=stage.name)
        with _writer(stage, kind, peers, patience_s):
            record = _run(stage, key, kind, peers, replace)
    watch.event("finished", name=stage.name, skipped=False)
    return {**record, "skipped": False}


def _run(stage: Stage, key: str, kind: Kind, peers: "World", replace: bool) -> dict[str, Any]:
    if peers.main:
        _prepare(stage, key, kind, replace)
    peers.barrier()
    began = time.perf_counter()
    alone = not kind.distributed  # then rank 0 does it for all
    figures = importlib.import_module(kind.module).run(stage.config, key, peers) if peers.main or not alone else {}
    peers.barrier()
    record = {
        "name": stage.name,
        "kind": stage.kind,
        "key": key,
        "seconds": round(time.perf_counter() - began, 2),
        "ranks": figures.pop("ranks", peers.ranks),
        "figures": figures,
    }
    if peers.main:
        _write_config(stage)
        files = output_hashes(stage.out, {})
        outputs = {name: entry["hash"] for name, entry in files.items()}
        write_json(stage.out / RECORD, {**record, "outputs": outputs, "files": files})
    peers.barrier()
    return record


@contextmanager
def _writer(stage: Stage, kind: Kind, peers: "World", patience_s: float) -> Iterator[None]:
    """Rank 0 holds a resumable stage's folder: a run that still goes on is not joined by a second one.

    A refused run leaves no folder behind that was not there before and holds no work.
    """
    if not (peers.main and kind.resumable):
        yield
        return
    fresh = not stage.out.exists()
    make_folder(stage.out)
    with folder_lock(stage.out, patience_s):
        try:
            yield
        except UserError:
            if fresh and not (stage.out / "checkpoints").exists() and not any(stage.out.glob(".*.partial")):
                remove_tree(stage.out)
            raise


def _world(stage: Stage, world: "World | None", watch: Watch) -> "AbstractContextManager[World]":
    if world is not None:
        return nullcontext(world)
    from bingo.distributed import world as join

    return join(getattr(stage.config, "runtime", Runtime()), watch)


def _prepare(stage: Stage, key: str, kind: Kind, replace: bool) -> None:
    started = read_json(stage.out / RECORD).get("key") if (stage.out / RECORD).exists() else None
    if started is not None and started != key:
        if not replace:
            raise UserError(
                f"{stage.out} holds a {stage.kind} with other settings or inputs; "
                "choose another --out or delete that folder"
            )
        clear_folder(stage.out)
    if kind.resumable:  # a run folder says what it is from its first second, and a killed run knows that it may resume
        _write_config(stage)
        write_json(stage.out / RECORD, {"key": key, "kind": stage.kind, "name": stage.name})


def _write_config(stage: Stage) -> None:
    from bingo.environment import environment_record

    write_json(stage.out / "config.json", {"kind": stage.kind, **to_json(stage.config)})
    write_json(stage.out / "environment.json", environment_record())
