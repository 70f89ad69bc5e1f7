"""Two chains whose status is asked for: one as a real Slurm told of it, one whose node went down."""

import json

from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Row, Snapshot
from tests.support.ranks import ROOT

SENT = 1_795_522_026.0
IDS = {"big": "35", "fails": "36", "tail": "37", "never": "38", "arr": "39", "self": "40", "hold": "41", "nf": "43"}
RECORDED = json.loads((ROOT / "tests" / "launch" / "status" / "slurm_recorded.json").read_text())


def recorded(moment: str) -> Snapshot:
    said = RECORDED[moment]
    text = {name: None if said[name] is None else "\n".join(said[name]) for name in ("squeue", "sacct")}
    return slurm.snapshot({**said, **text})


T = 1_795_522_000.0
PAST = {
    "7": (
        Row("7", "NODE_FAIL", "", T, T, T + 10, T + 60, 0, "c[1-2]"),
        Row("7", "RUNNING", "", T + 60, T + 70, T + 75, None, 1, "c[1-2]"),
    )
}


def event(after: float, kind: str, **facts: object) -> dict[str, object]:
    return {"time": T + after, "event": kind, **facts}
