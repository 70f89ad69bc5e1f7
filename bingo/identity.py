"""What a stage is recognised by: its settings and the content of its inputs; and what the record of a stage says.

A stage's key is the hash of its kind, its settings and the content of its inputs. `stage.json` in its folder, sealed
with its own hash, holds the key, what it was made of, and the hash, size and time of every output. An input is
believed by its record only while size and time are as recorded; where they differ it is hashed again. No torch is
imported here: recognising a finished chain takes a fraction of a second.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo import __version__
from bingo.config_json import to_json
from bingo.config_parts import Runtime
from bingo.errors import UserError, file_error
from bingo.files import BY_PRODUCTS, RECORD, check_recorded, hash_file, hash_json, read_sealed
from bingo.inputs import FORMS, IMAGES, check_input
from bingo.paths import as_text

CHOICES = ("class_from", "ext")
"""Settings of a pack that say what of its source is read."""
FLAT_FILE = re.compile(r"images-[0-9a-f]{12}-\d{3,}\.bin")
"""The images of a packed dataset. Its index has the hash of each, and each is compared when it is first read."""
MEND = "restore it, or delete the folder and run its stage again"


@dataclass(frozen=True)
class Input:
    """One input of a stage: where it is, its content hash, and what was hashed."""

    path: Path
    hash: str
    by: str

    @property
    def place(self) -> str:
        """The path as it leads there from any folder."""
        return as_text(self.path.absolute())


@dataclass(frozen=True)
class Identity:
    """What a stage is recognised by. settings: as JSON, every input's path replaced by its content hash."""

    kind: str
    settings: dict[str, Any]
    inputs: dict[str, Input]

    @property
    def key(self) -> str:
        return hash_json({"kind": self.kind, "version": __version__, "settings": self.settings})

    def to_json(self) -> dict[str, Any]:
        inputs = {name: {"path": i.place, "hash": i.hash, "by": i.by} for name, i in self.inputs.items()}
        return {"kind": self.kind, "key": self.key, "version": __version__, "settings": self.settings, "inputs": inputs}


def identify(kind: str, config: Any) -> Identity:
    """The identity of a stage; the output's place and the machine do not enter.

    `UserError` when an input is missing, unfinished, or not what its stage wrote.
    """
    settings = to_json(config)
    settings.pop("out")
    settings.pop("workers", None)
    for name in CHOICES:  # an empty one is as if it were not there: so it was in earlier releases
        if not settings.get(name):
            settings.pop(name, None)
    runtime = getattr(config, "runtime", None)
    if isinstance(runtime, Runtime):
        settings["runtime"] = {"precision": runtime.precision}
    if "loader" in settings:
        settings["loader"] = {"fancy_upsampling": config.loader.fancy_upsampling}
    inputs = {name: find_input(name, path, settings) for name, path in input_paths(config).items()}
    for name, found in inputs.items():
        *parents, leaf = name.split(".")
        place = settings
        for parent in parents:
            place = place[parent]
        place[leaf] = found.hash
    return Identity(kind, settings, inputs)


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


def find_input(name: str, path: Path, settings: Mapping[str, Any]) -> Input:
    """The content of the input that the setting `name` gives; settings: the stage's, some say what is read of it."""
    if name == "source":
        choices = {name: settings[name] for name in CHOICES if name in settings}
        return Input(path, fingerprint(path, **choices), "names, sizes and times of its images")
    check_input(name, path)
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

    Another stage's folder inside (an evaluation in its run's) is that stage's.
    """
    found = {}
    for path in _visible_files(out):
        name = path.relative_to(out).as_posix()
        if name.split("/")[0] not in BY_PRODUCTS:
            status = path.stat()
            found[name] = {"hash": hash_file(path), "size": status.st_size, "mtime": status.st_mtime_ns}
    return found


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
    if not (isinstance(inputs, dict) and inputs.keys() <= {*FORMS, "source"}):
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


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (recorded, now) of the settings that differ; None for one that is not there."""
    ours, theirs = flat(recorded), flat(now)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of nested settings."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def in_words(record: Mapping[str, Any], identity: Identity) -> list[str]:
    """What differs between a record and the stage that is to run, one phrase for each setting and input."""
    if "settings" not in record:
        return ["other settings or inputs"]
    if record.get("version") != __version__:
        return [f"version {record.get('version')} of bingo, not {__version__}"]
    words = []
    for name, (recorded, now) in differences(record["settings"], identity.settings).items():
        if name in identity.inputs and recorded and now:
            before = record.get("inputs", {}).get(name, {}).get("path")
            path = identity.inputs[name].place
            words.append(f"another content of {name} {path}" if before == path else f"{name} {before}, not {path}")
        else:
            words.append(f"{name}={_shown(recorded)}, not {_shown(now)}")
    return words or ["other settings or inputs"]


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
