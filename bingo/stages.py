"""Stages: a config in, a folder out, recognised as done by content hashes of what went in and came out.

A finished stage is skipped, one with other settings is refused or run again, a damaged output is noticed; see
`bingo.identity`. A folder has one writer at a time. No torch is imported here.
"""

import importlib
import logging
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo import __version__
from bingo.aside import half_done, has_checkpoints, move_held_aside
from bingo.config_json import from_json, from_record, to_json, to_record
from bingo.config_parts import Runtime
from bingo.environment import PACKAGES, version
from bingo.errors import TransientError, UserError, did_you_mean
from bingo.files import (
    BEGUN,
    BY_PRODUCTS,
    ENVIRONMENT,
    LOCK,
    METRICS,
    RECORD,
    REPLACED,
    SAVED,
    folder_lock,
    hash_json,
    is_blank,
    make_folder,
    read_object,
    sweep_temporaries,
    write_json,
    write_sealed,
)
from bingo.identity import (
    MEND,
    Identity,
    check_inputs,
    code_hash,
    difference,
    flat,
    identify,
    in_words,
    output_hashes,
    read_record,
)
from bingo.inputs import CONFIG, HOLDS, is_gone, shown
from bingo.key_settings import asked_of, other_arithmetic
from bingo.kinds import ALL_KINDS, KINDS
from bingo.variables import place
from bingo.watch import Watch

if TYPE_CHECKING:
    from bingo.distributed import World

log = logging.getLogger(__name__)
OR_REPLACE = "or have what is there moved aside: --replace of bingo run, submit and sweep"
PLACED = ("demo-data", "pack")
"""Kinds that look themselves at what a folder without a record holds."""
OF_A_RANK = ("runtime.threads", "workers")
"""Settings that may differ between the ranks of a stage: they change nothing that ranks do together."""


@dataclass(frozen=True)
class Stage:
    """One stage of a chain: a name for people, a kind, and its settings."""

    name: str
    kind: str
    config: Any

    @property
    def out(self) -> Path:
        return self.config.out

    @property
    def resumable(self) -> bool:  # of evaluations those are that train step by step
        return ALL_KINDS[self.kind].resumable or getattr(self.config, "trains", False)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "config": to_json(self.config)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Stage":
        if value["kind"] not in ALL_KINDS:
            raise UserError(f"stage kind {value['kind']!r} is unknown; {did_you_mean(value['kind'], KINDS)}")
        return Stage(
            value["name"], value["kind"], from_json(ALL_KINDS[value["kind"]].config, value["config"], value["name"])
        )


def stage_key(stage: Stage) -> str:
    """What the stage is recognised by, see `bingo.identity`."""
    return identify(stage.kind, stage.config).key


def identity_of(stage: Stage, *, any_version: bool = False) -> Identity:
    """The stage's identity. any_version: as another version of bingo began it, if the folder's record says so."""
    identity = identify(stage.kind, stage.config)
    if any_version and not is_blank(stage.out / RECORD):
        record = read_record(stage.out)
        if "outputs" in record or stage.resumable:
            return identity.as_begun(record)
    return identity


def finished(stage: Stage, key: str) -> dict[str, Any] | None:
    """The stage's record if it is done with exactly these settings and inputs and its outputs are as they were."""
    if is_blank(stage.out / RECORD):
        return None
    record = read_record(stage.out)
    other = record["key"] != key or "outputs" not in record or other_arithmetic(asked_of(stage.config), record)
    return None if other or any(difference(stage.out / n, entry) for n, entry in record["files"].items()) else record


def run_stage(
    stage: Stage,
    *,
    world: "World | None" = None,
    watch: Watch | None = None,
    replace: bool = False,
    patience_s: float = 0,
    sent: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a stage unless it is done; returns its record with `skipped` set.

    watch: what hears and tells where no `world` is given, whose own does so otherwise. Raises `Leaving` when a rank was
    asked to leave; the same call then goes on where it stopped.
    replace: work of another stage that the folder holds, finished or begun, is moved aside; otherwise that is a
    `UserError`. Nothing that is there is deleted.
    patience_s: how long to wait while another process holds the folder (an earlier attempt that is not dead yet).
    sent: what was known when the job was sent, see `bingo.launch.job.sent`.
    """
    watch = world.watch if world else watch or Watch()
    identity = None
    if world is None and place().size == 1:  # told without torch, whose import takes longer than all the rest
        identity = _identity(stage, sent)
        if record := finished(stage, identity.key):
            return _skipped(stage, record, watch)
    with _world(stage, world, watch) as peers:
        if identity is None:
            identity = peers.together(lambda: _identity(stage, sent), lambda found: _facts(stage, found))
            if record := _finished(stage, identity, peers):
                return _skipped(stage, record, watch)
        if sent:
            peers.by_main(lambda: _as_sent(stage, identity, sent))
        if peers.leaving(now=True):
            peers.leave(0, f"before the stage {stage.name}")
        watch.event("stage", name=stage.name)
        with ExitStack() as held:
            peers.by_main(lambda: held.enter_context(_writer(stage, patience_s)))
            # Who held the folder while we waited may have done this very stage.
            if record := _finished(stage, identity, peers):
                return _skipped(stage, record, watch)
            record = _run(stage, identity, peers, replace)
    watch.event("finished", name=stage.name, skipped=False)
    return {**record, "skipped": False}


def _identity(stage: Stage, sent: Mapping[str, Any] | None) -> Identity:
    try:
        return identity_of(stage, any_version=bool(sent and sent["any_version"]))
    except UserError as error:
        for name, was in (sent or {"inputs": {}})["inputs"].items():
            if is_gone(Path(was["path"])):
                raise TransientError(
                    f"{shown(name)}: {was['path']} is empty or not there, although it was when the job was sent: "
                    "is its storage mounted?"
                ) from error
        raise


def _as_sent(stage: Stage, identity: Identity, sent: Mapping[str, Any]) -> None:
    if is_blank(stage.out / RECORD):  # what has begun says more: its record
        check_inputs(identity, sent["inputs"])


def _finished(stage: Stage, identity: Identity, peers: "World") -> dict[str, Any] | None:
    """As `finished`: rank 0's look, for all."""
    return peers.by_main(lambda: finished(stage, identity.key))


def _skipped(stage: Stage, record: dict[str, Any], watch: Watch) -> dict[str, Any]:
    watch.event("finished", name=stage.name, skipped=True)
    return {**record, "skipped": True}


def _facts(stage: Stage, identity: Identity) -> dict[str, Any]:
    """What every rank of a stage must have alike: code, settings, and the content of inputs."""
    settings = {name: value for name, value in flat(to_json(stage.config)).items() if name not in OF_A_RANK}
    inputs = {f"the content of {name} ({found.place})": found.hash for name, found in identity.inputs.items()}
    code = {"version": __version__, **{name: version(name) for name in PACKAGES if name != "submitit"}}
    code["the content of bingo's own code"] = code_hash()
    return {"the stage": f"{stage.kind} {stage.name}", **code, **settings, **inputs, "its key": identity.key}


def _run(stage: Stage, identity: Identity, peers: "World", replace: bool) -> dict[str, Any]:
    kind = ALL_KINDS[stage.kind]
    begun = peers.by_main(lambda: _prepare(stage, identity, replace))
    began = time.perf_counter()
    run = importlib.import_module(kind.module).run
    if kind.distributed:
        figures = run(stage.config, identity.key, peers)
        peers.barrier()
    else:
        figures = peers.by_main(lambda: run(stage.config, identity.key, peers))
    record = {
        "name": stage.name,
        **identity.to_json(),
        **({} if identity.version == __version__ else {"continued_by": __version__}),
        "config": begun,
        "seconds": round(time.perf_counter() - began, 2),
        "ranks": figures.pop("ranks", peers.ranks),
        "figures": figures,
    }
    peers.by_main(lambda: _write_record(stage.out, record))
    return record


def _write_record(out: Path, record: dict[str, Any]) -> None:
    """Of a stage that is done."""
    files = output_hashes(out)
    outputs = {name: entry["hash"] for name, entry in files.items()}
    write_sealed(out / RECORD, {**record, "outputs": outputs, "files": files})
    (out / REPLACED).unlink(missing_ok=True)


@contextmanager
def _writer(stage: Stage, patience_s: float) -> Iterator[None]:
    """Hold the stage's folder: two commands never write one folder together.

    A refused run leaves nothing behind that was not there before and holds no work.
    """
    fresh = not stage.out.exists()
    make_folder(stage.out)
    before = {path.name for path in stage.out.iterdir()}
    with folder_lock(stage.out, patience_s):
        try:
            yield
        except UserError:
            with suppress(OSError):  # its storage may be away, or somebody else has put something there
                if RECORD not in before and not _holds_work(stage.out, before):
                    for name in {*BEGUN, METRICS, LOCK} - before:
                        (stage.out / name).unlink(missing_ok=True)
                    if fresh:
                        stage.out.rmdir()
            raise


def _holds_work(out: Path, before: Set[str]) -> bool:
    """Whether there is more in a folder than before, and than what every stage puts into it when it starts."""
    metrics = out / METRICS
    more = {path.name for path in out.iterdir()} - {LOCK, *BEGUN, metrics.name} - (before - {"checkpoints"})
    return bool(more) or (metrics.exists() and metrics.stat().st_size > 0)


def _world(stage: Stage, world: "World | None", watch: Watch) -> "AbstractContextManager[World]":
    if world is not None:
        return nullcontext(world)
    from bingo.distributed import world as join

    return join(getattr(stage.config, "runtime", Runtime()), watch)


def _prepare(stage: Stage, identity: Identity, replace: bool) -> str:
    """Refuse what a folder holds of others, sweep what killed writers left half-written, write down what this one is.

    From its first second a folder says what it is; a killed run knows that it may go on, and nobody reads half of it.
    Returns the hash of its config.json.
    """
    out = stage.out
    if held := in_the_way(stage, identity):
        if not replace:
            raise UserError(held)
        log.warning("%s", move_held_aside(out, stage.kind))
    if identity.version != __version__:
        log.info("%s goes on with what version %s of bingo began; this is %s", out, identity.version, __version__)
    sweep_temporaries(out)
    sweep_temporaries(out / "checkpoints")
    from bingo.environment import environment_record

    config = to_record(stage.kind, stage.config)
    content = hash_json(config)
    write_json(out / CONFIG, config)
    write_json(out / ENVIRONMENT, environment_record())
    write_sealed(out / RECORD, {"name": stage.name, **identity.to_json(), "config": content})
    return content


def in_the_way(stage: Stage, identity: Identity) -> str:
    """A sentence about the work of another stage that the stage's folder holds; "" where the stage may write there.

    identity: as `identify` gives it, some inputs may be unknown yet. `UserError` for a folder that holds files of
    others and no stage, and for a damaged record.
    """
    if not (out := stage.out).is_dir():
        return ""
    if not is_blank(out / RECORD):
        record = read_record(out)
        abandoned = "outputs" not in record and not (stage.resumable or _visible(out) or has_checkpoints(out))
        if identity.is_of(record) or (abandoned and record["kind"] == stage.kind):
            return ""
        return _refusal(out, record, identity)
    begun = not is_blank(out / CONFIG)
    # What a resumable stage goes on from says itself what it is of: such a folder may have lost its record.
    if begun and (stage.resumable or stage.kind in PLACED or _is_of_another(stage)):
        record = _without_record(stage)
        return "" if identity.is_of(record) else _refusal(out, record, identity)
    if stage.kind == "pack" and (out / "index.npz").exists():
        return f"{out} holds packed images without their {RECORD}; choose another --out, {OR_REPLACE}"
    if (out / REPLACED).exists():
        return ""
    foreign = [] if stage.kind in PLACED else _visible(out)
    if not (foreign or begun or half_done(out)):  # the user's own under names of ours
        written = (ENVIRONMENT,) if stage.kind in PLACED else (ENVIRONMENT, METRICS, SAVED)
        named = (out / name for name in written)
        foreign = [path.name for path in named if path.is_file() and path.stat().st_size]
    if foreign:
        lost = f" (its {RECORD} is empty)" if (out / RECORD).exists() else ""
        raise UserError(
            f"{out} holds {foreign[0]!r} and no stage of bingo{lost}; choose a new or empty folder for --out"
        )
    return ""


def _is_of_another(stage: Stage) -> bool:
    """Whether config.json names another kind of stage; that of bags and evaluations names their own kinds."""
    return read_object(stage.out / CONFIG, {"kind": str})["kind"] in ALL_KINDS.keys() - {stage.kind}


def _without_record(stage: Stage) -> dict[str, Any]:
    """What a record would say of a folder that has only its config.json."""
    file = stage.out / CONFIG
    config = read_object(file, {"kind": str})
    if config["kind"] not in ALL_KINDS:
        raise UserError(f"{file} is of no stage that this version knows; {MEND}")
    if config["kind"] != stage.kind:
        return {"kind": config["kind"], "key": "", "version": __version__}
    was: Any = from_record(ALL_KINDS[stage.kind].config, config, str(file))
    return identify(stage.kind, was, made=frozenset()).to_json()


def _visible(out: Path) -> list[str]:
    """Names in a folder but hidden ones and by-products of stages."""
    return sorted(path.name for path in out.iterdir() if path.name[0] != "." and path.name not in BY_PRODUCTS)


def _refusal(out: Path, record: Mapping[str, Any], identity: Identity) -> str:
    """What a folder holds in place of this stage, and what to do, in words."""
    theirs, ways = HOLDS.get(record["kind"], repr(record["kind"])), ["choose another --out"]
    if record["kind"] != identity.kind:
        held = f"{theirs}, not {HOLDS[identity.kind]}"
    else:
        held = f"{theirs} made with {'; '.join(in_words(record, identity))}"
        ways += ["restore that input"] * any(name in identity.inputs for name in identity.differences(record))
        ways += ["go on with it by `bingo repair --new-code`"] * (identity.as_begun(record) is not identity)
    return f"{out} holds {held}; {', '.join(ways)}, {OR_REPLACE}"
