"""`bingo explain OUT`: what a stage's folder was made of, by which hashes, and what differs now."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bingo.arguments import Parser
from bingo.errors import UserError
from bingo.files import RECORD
from bingo.flags import DOORS, stage_of
from bingo.identity import difference, find_input, identify, in_words, read_record
from bingo.inputs import HOLDS
from bingo.key_settings import flat
from bingo.stages import KINDS

AS_RECORDED = "as recorded"


def explain_flags() -> Parser:
    about = (
        "What a stage's folder was made of, by which hashes, and what differs now; 1 if something does. After -- come "
        "flags of the stage's verb: would this command find the folder done, and if not, why?"
    )
    example = "bingo explain runs/bags -- --data data/train --features runs/features --k 10"
    parser = Parser("bingo explain", about, example, "bingo explain OUT [--hash] [--json] [-- FLAGS]")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of a stage")
    parser.add_argument("--hash", action="store_true", help="hash every output, also those of unchanged size and time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def explain(argv: list[str]) -> int:
    """`bingo explain OUT [--hash] [--json] [-- FLAGS]`."""
    at = argv.index("--") if "--" in argv else len(argv)
    options, flags = explain_flags().parse_args(argv[:at]), argv[at + 1 :] if at < len(argv) else None
    found = describe(options.out, thorough=options.hash, flags=flags)
    print(json.dumps(found, indent=2) if options.json else "\n".join(lines(found)))
    return 1 if found["differs"] else 0


def describe(out: Path, *, thorough: bool = False, flags: list[str] | None = None) -> dict[str, Any]:
    """What is known of the stage in `out`, as JSON; `differs`: one phrase for everything that is not as recorded.

    thorough: hash every output. flags: those of a command that is to be compared. `UserError` for a folder without a
    whole record.
    """
    if not (out / RECORD).exists():
        raise UserError(f"{out} is not the folder of a stage (no {RECORD} in it); name what was given as --out")
    record = read_record(out)
    differs = []
    settings = record.get("settings", {})
    inputs = {name: {**was, "now": _now(name, was, settings)} for name, was in record.get("inputs", {}).items()}
    differs += [f"{name} {was['path']} {was['now']}" for name, was in inputs.items() if was["now"] != AS_RECORDED]
    outputs = {}
    for name, entry in record.get("files", {}).items():
        wrong = difference(out / name, entry, thorough=thorough)
        outputs[name] = {**entry, "now": wrong or AS_RECORDED}
        differs += [f"{name} {wrong}"] if wrong else []
    if flags is not None:
        differs += _against(record, out, flags)
    known = {name: record.get(name) for name in ("name", "kind", "key", "version", "settings", "figures")}
    return {**known, "finished": "outputs" in record, "inputs": inputs, "outputs": outputs, "differs": differs}


def _now(name: str, was: dict[str, Any], settings: dict[str, Any]) -> str:
    try:
        found = find_input(name, Path(was["path"]), settings)
    except UserError as error:
        return f"cannot be compared: {error}"
    return AS_RECORDED if found.hash == was["hash"] else f"has another content: {found.hash}"


def _against(record: dict[str, Any], out: Path, flags: list[str]) -> list[str]:
    """What a command would make otherwise than the record says; without --out it is meant for this folder."""
    if record["kind"] not in KINDS:
        raise UserError(f"the stage kind {record['kind']!r} is unknown to this version")
    given = "out" in DOORS[record["kind"]].words or any(word.partition("=")[0] == "--out" for word in flags)
    stage = stage_of(record["kind"], flags if given else [*flags, "--out", str(out)])
    identity = identify(stage.kind, stage.config)
    return [] if identity.is_of(record) else [f"made with {words}" for words in in_words(record, identity)]


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    noun = HOLDS.get(found["kind"], found["kind"])
    yield f"{found['name']}: {noun}, {'finished' if found['finished'] else 'not finished'}; key {found['key']}"
    for name, was in found["inputs"].items():
        yield f"input   {name:12s} {was['path']}  {was['hash']} ({was['by']}): {was['now']}"
    for name, value in flat(found["settings"] or {}).items():
        if name not in found["inputs"]:
            yield f"setting {name:24s} {value}"
    for name, entry in found["outputs"].items():
        yield f"output  {name:24s} {entry['size']:>12d} bytes  {entry['hash']}: {entry['now']}"
    yield f"differs {len(found['differs'])}" + "".join(f"\n  {text}" for text in found["differs"])
