"""What a stage is recognised by: its settings and the content of its inputs; and what the record of a stage says.

A stage's key is the hash of its kind, its settings and the content of its inputs. `stage.json` in its folder, sealed
with its own hash, holds the key, what it was made of, and the hash, size and time of every output. An input is
believed by its record only while size and time are as recorded; where they differ it is hashed again. No torch is
imported here: recognising a finished chain takes a fraction of a second.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Set
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo import __version__
from bingo.config_parts import Runtime
from bingo.errors import UserError, file_error
from bingo.files import BY_PRODUCTS, RECORD, check_recorded, hash_file, hash_json, read_sealed
from bingo.inputs import FORMS, IMAGES, OF_IMAGES, WROTE, check_input, kind_of, shown
from bingo.key_settings import CHOICES, asked_of, flat, left_out, other_arithmetic, settings_in_key
from bingo.paths import as_text, library_name

FLAT_FILE = re.compile(r"images-[0-9a-f]{12}-\d{3,}\.bin")
"""The images of a packed dataset. Its index has the hash of each, and each is compared when it is first read."""
MEND = "restore it, or delete the folder and run its stage again"
_known: ContextVar["dict[tuple[object, ...], Input | UserError] | None"] = ContextVar("known", default=None)


@dataclass(frozen=True)
class Input:
    """One input of a stage: where it is, its content hash, and what was hashed."""

    path: Path
    hash: str
    by: str

    @property
    def place(self) -> str:
        """The path as it leads there from any folder."""
        return library_name(self.path) or as_text(self.path.absolute())


@dataclass(frozen=True)
class Identity:
    """What a stage is recognised by. settings: as JSON, every input's path replaced by its content hash.

    version: of bingo. unknown: names of the inputs whose content is not known yet; their place in the settings is None.
    """

    kind: str
    settings: dict[str, Any]
    inputs: dict[str, Input]
    version: str
    unknown: frozenset[str] = frozenset()
    left_out: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Dotted name -> the value of settings that are not in a key while they have it."""
    asked: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of arithmetic that are asked for in so many words, which a key does not tell from their `auto`."""

    @property
    def key(self) -> str:
        return hash_json({"kind": self.kind, "version": self.version, "settings": self.settings})

    def inputs_json(self) -> dict[str, dict[str, str]]:
        return {name: {"path": i.place, "hash": i.hash, "by": i.by} for name, i in self.inputs.items()}

    def to_json(self) -> dict[str, Any]:
        known = {"kind": self.kind, "key": self.key, "version": self.version}
        return {**known, "settings": self.settings, "inputs": self.inputs_json()}

    def as_begun(self, record: Mapping[str, Any]) -> "Identity":
        """The same of the version that a record is of, if the record differs in nothing else."""
        begun = dataclasses.replace(self, version=str(record.get("version")))
        return begun if begun.is_of(record) else self

    def is_of(self, record: Mapping[str, Any]) -> bool:
        """Whether the record speaks of this stage, as far as its inputs are known."""
        if other_arithmetic(self.asked, record):
            return False
        if not self.unknown:
            return self.key == record["key"]
        same = (self.kind, self.version) == (record["kind"], record.get("version", self.version))
        return same and not self.differences(record)

    def differences(self, record: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """`differences` to what is recorded, inputs that are not known left out."""
        found = differences(record.get("settings", self.settings), self.settings)
        return {name: values for name, values in found.items() if name not in self.unknown}


def identify(kind: str, config: Any, made: Set[Path] | None = None) -> Identity:
    """The identity of a stage; the output's place and the machine do not enter.

    `UserError` when an input is missing, unfinished, or not what its stage wrote. made: folders that are written before
    this stage runs; with them an input in one of those, or one that cannot be read, is `unknown` instead.
    """
    settings = settings_in_key(kind, config)
    settings.pop("out")
    settings.pop("workers", None)
    runtime = getattr(config, "runtime", None)
    if isinstance(runtime, Runtime):
        settings["runtime"] = {n: settings["runtime"][n] for n in ("precision", "engine") if n in settings["runtime"]}
    settings.get("monitor", {}).pop("sinks", None)  # they show results and change none
    if "loader" in settings:
        settings["loader"] = {"fancy_upsampling": config.loader.fancy_upsampling}
    paths = input_paths(config)
    inputs = {}
    for name, path in paths.items():
        if made is None:
            inputs[name] = find_input(name, path, settings)
        elif not lies_in(path, made):
            with contextlib.suppress(UserError):
                inputs[name] = find_input(name, path, settings)
    for name in paths:
        *parents, leaf = name.split(".")
        place = settings
        for parent in parents:
            place = place[parent]
        place[leaf] = inputs[name].hash if name in inputs else None
    unknown = frozenset(paths.keys() - inputs.keys())
    return Identity(kind, settings, inputs, __version__, unknown, left_out(kind, config), asked_of(config))


def lies_in(path: Path, folders: Set[Path]) -> bool:
    """Whether a path is one of these folders, or below one."""
    return not folders.isdisjoint((path, *path.parents))


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


@contextlib.contextmanager
def inputs_read_once() -> Iterator[None]:
    """Inside, an input that many stages share is read once; again only if its own size, time or inode has changed.

    For one command that looks at many stages: what lies inside a folder may change while a stage waits to run.
    """
    before = _known.set({} if _known.get() is None else _known.get())
    try:
        yield
    finally:
        _known.reset(before)


def find_input(name: str, path: Path, settings: Mapping[str, Any]) -> Input:
    """The content of the input that the setting `name` gives; settings: the stage's, some say what is read of it."""
    choices = {name: settings[name] for name in CHOICES if name in settings} if name == "source" else {}
    known = _known.get()
    if known is None:
        return _read_input(name, path, choices)
    place = (name, path.absolute(), *choices.items(), *_signature(path))
    if place not in known:
        try:
            known[place] = _read_input(name, path, choices)
        except UserError as error:
            known[place] = error
    found = known[place]
    if isinstance(found, UserError):
        raise found
    return dataclasses.replace(found, path=path)


def _signature(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _read_input(name: str, path: Path, choices: Mapping[str, str]) -> Input:
    if name == "source":
        return Input(path, fingerprint(path, **choices), "names, sizes and times of its images")
    if name == "from_idx":
        from bingo.images.idx import hash_idx

        return Input(path, hash_idx(path), "the bytes of its four files")
    check_input(name, path)
    if library := library_name(path):
        return Input(path, weights_hash(library), "the library's weights")
    if path.is_file():
        found = hash_file(path)
        check_recorded(path, found)
        return Input(path, found, "its bytes")
    if (path / RECORD).exists():
        return Input(path, hash_json(outputs_of(path)), "what its stage recorded")
    if (path / "index.npz").exists():
        return Input(path, hash_file(path / "index.npz"), "its index")
    if FORMS[name] is IMAGES:
        return Input(path, fingerprint(path), "names, sizes and times of its images")
    content = {file.relative_to(path).as_posix(): hash_file(file) for file in _visible_files(path)}
    return Input(path, hash_json(content), "the bytes of its files")


def fingerprint(source: Path, **choices: str) -> str:
    """Hash of the listing that is read: class and file names, sizes and times."""
    from bingo.images import sources

    return sources.fingerprint(source, **choices)


def weights_hash(library: str) -> str:
    """Content hash of the weights that `timm:NAME` or `torchvision:NAME` stands for; they are fetched if need be."""
    from bingo.models.library import load_library

    return load_library(library)[1]


def outputs_of(folder: Path) -> dict[str, str]:
    """Name -> hash of a finished stage's outputs. Where size or time differ from the record, the file is hashed again.

    `UserError` when the stage is not finished, or an output is missing or not what the stage wrote.
    """
    record = read_record(folder)
    if "outputs" not in record:
        raise UserError(f"input {folder} is a {record.get('kind', 'stage')} that is not finished; run it to its end")
    for name, entry in record["files"].items():
        if wrong := difference(folder / name, entry):
            raise UserError(f"{folder / name} {wrong}; {MEND}")
    return record["outputs"]


def difference(file: Path, entry: Mapping[str, Any], *, thorough: bool = False) -> str:
    """How an output differs from its entry in the record, or "". thorough: hash it although size and time agree."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return "is missing, its stage wrote it"
    except OSError as error:
        raise file_error(error, f"cannot read {file}: {error.strerror}") from error
    if found.st_size != entry["size"]:
        return f"has {found.st_size} bytes, its stage wrote {entry['size']}"
    changed = found.st_mtime_ns != entry["mtime"] and not FLAT_FILE.fullmatch(file.name)
    if (changed or thorough) and hash_file(file) != entry["hash"]:
        return "is not the file that its stage wrote: its content hash differs"
    return ""


def output_hashes(out: Path) -> dict[str, dict[str, Any]]:
    """Relative name -> {hash, size, mtime} of a stage's output files.

    Another stage's folder inside (an evaluation in its run's) is that stage's. Where the folder's record says which
    kind of stage it is, files that such a stage does not write, the user's notes, are left out.
    """
    found = {}
    wrote = WROTE.get(kind_of(out) or "")
    for path in _visible_files(out):
        name = path.relative_to(out).as_posix()
        if name.split("/")[0] not in BY_PRODUCTS and (wrote is None or wrote.fullmatch(name)):
            status = path.stat()
            found[name] = {"hash": hash_file(path), "size": status.st_size, "mtime": status.st_mtime_ns}
    return found


def code_hash() -> str:
    """Hash of this package's source as it lies on disk here: the name and the content of every module."""
    here = Path(__file__).parent
    found = {}
    for top, folders, files in os.walk(here, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            if name.endswith(".py"):
                path = Path(top, name)
                found[path.relative_to(here).as_posix()] = hash_file(path)
    return hash_json(found)


def _visible_files(folder: Path) -> Iterator[Path]:
    """Every file in a folder and below, but hidden ones, and those in folders of other stages."""
    for top, folders, files in os.walk(folder):
        here = Path(top)
        folders[:] = sorted(n for n in folders if n[0] != "." and not (here / n / RECORD).exists())
        yield from (here / name for name in sorted(files) if name[0] != "." and (here / name).is_file())


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the stage in a folder. `UserError` when it is damaged, or no record at all."""
    path = folder / RECORD
    record = read_sealed(path, {"key": str, "kind": str}, remedy=MEND)
    if not (isinstance(record.get("settings", {}), dict) and _are_inputs(record.get("inputs", {}))):
        raise UserError(f"{path} is damaged: its settings or inputs are none; {MEND}")
    if "outputs" not in record:
        return record
    if not _are_outputs(record["outputs"], record.get("files")):
        raise UserError(f"{path} is damaged: its list of outputs is none; {MEND}")
    return record


def _are_inputs(inputs: Any) -> bool:
    """Whether this is what `Identity.to_json` writes: setting -> {path, hash, by}."""
    if not (isinstance(inputs, dict) and inputs.keys() <= {*FORMS, *OF_IMAGES}):
        return False
    names = ("path", "hash", "by")
    return all(
        isinstance(entry, dict) and all(isinstance(entry.get(n), str) for n in names) for entry in inputs.values()
    )


def _are_outputs(outputs: Any, files: Any) -> bool:
    """Whether these are name -> hash, and name -> {hash, size, mtime} with the same hashes, of at least one file."""
    if not (isinstance(outputs, dict) and isinstance(files, dict) and outputs and outputs.keys() == files.keys()):
        return False
    kinds = {"hash": str, "size": int, "mtime": int}
    whole = all(isinstance(e, dict) and all(isinstance(e.get(n), k) for n, k in kinds.items()) for e in files.values())
    return whole and all(entry["hash"] == outputs[name] for name, entry in files.items())


def check_inputs(identity: Identity, sent: Mapping[str, Mapping[str, str]]) -> None:
    """`UserError` if an input is not what it was when the job was sent. sent: as `Identity.inputs_json`."""
    for name, found in identity.inputs.items():
        if name in sent and sent[name]["hash"] != found.hash:
            raise UserError(
                f"{shown(name)}: {found.place} has another content than when the job was sent (known by {found.by}); "
                "restore it, or take it as it is now: send the job again with `bingo repair`"
            )


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (recorded, now) of the settings that differ; None for one that is not there."""
    ours, theirs = flat(recorded), flat(now)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    }


def in_words(record: Mapping[str, Any], identity: Identity) -> list[str]:
    """What differs between a record and the stage that is to run, one phrase for each setting and input."""
    if "settings" not in record:
        return ["other settings or inputs"]
    words = []
    if record.get("version") != identity.version:
        words.append(f"version {record.get('version')} of bingo, not {identity.version}")
    for name, (recorded, now) in identity.differences(record).items():
        if name in identity.inputs and recorded and now:
            before = record.get("inputs", {}).get(name, {}).get("path")
            path = identity.inputs[name].place
            words.append(f"another content of {name} {path}" if before == path else f"{name} {before}, not {path}")
        else:
            before, after = (identity.left_out.get(name) if value is None else value for value in (recorded, now))
            words += [f"{name}={_shown(before)}, not {_shown(after)}"] if before != after else []
    return [*words, *other_arithmetic(identity.asked, record)] or ["other settings or inputs"]


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
