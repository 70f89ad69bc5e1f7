"""Where everything about a submission lies: plain files below the recipe's root, readable by anyone.

ROOT/submissions/ID/         one `bingo submit`; appears whole (staged under another name, then renamed)
  submission.json            what was asked for: recipe, site, jobs with their stages and needs
  jobs.jsonl                 one line per job handed to Slurm: {job, slurm_id, time, repair}, of an array also which
                             {tasks}; the newest of a job or task counts
  refused                    {time, job, reason}: Slurm refused a job, and what had been sent was cancelled
  site.toml                  the site file as it was
  notified/STATE-REPAIR.json {time, state, job, sentence, outcome, ...}: what the site file's `notify` was told of
  code/  code.json code.diff the snapshot that the jobs run; git sha, hash of the uncommitted diff; the diff
                             (code-2/ ... after `bingo repair --new-code`)
  jobs/NAME/                 one job
    job.json                 a `JobSpec`
    sent.json                what was known of its inputs when it was sent, see `bingo.launch.job.sent`
    script.sh                what sbatch got
    cancelled                {time, reason}: it shall not start again
    ID_RANK_log.out          a rank's output; ID_batch.log the batch script's and srun's (ID: 12, or 12_3 in an array)
    attempts/ID-RESTART/     one start of the job
      begin.json             {time, host, nodes, restart, slurm_id}
      rank-R.jsonl           events of a rank, one per line: {time, event, ...}
      rank-R.beat            "STEP TIME STAGE" of its last sign of life, rewritten at most once a second
      end.json               {time, rc, decision, then, cause}; absent when the node went down with the batch script
      requeue                "TIME ANSWER" of every `scontrol requeue` at its end; the last says `accepted`
      preflight.json exclude figures of the nodes before the start; names of slow nodes
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

SUBMISSIONS = "submissions"
ATTEMPTS = "attempts"
KNOWN = re.compile(
    r"""submission\.json | jobs\.jsonl | refused | site\.toml | notified/[a-z]+-\d+\.json | code(-\d+)?\.(json|diff)
    | \.?code(-\d+)?(\.staged)?/(bingo|kernels|launch|bench)/.+ | \.code-\d+\.staged\.(json|diff)
    | jobs/[^/]+/([a-z]+\.json | script\.sh | cancelled | [^/]+_(\d+_log\.out | batch\.log) | \.preflight-[^/]+)
    | jobs/[^/]+/attempts/[^/]+/([a-z-]+\.json | rank-\d+\.(jsonl|beat) | exclude | requeue)
    | (.+/)?\.[^/]+\.tmp""",
    re.VERBOSE,
)
"""Paths below a submission's folder that are the suite's own; `bingo prune` leaves a folder alone that holds others."""


def job_folder(submission: Path, name: str) -> Path:
    """Folder of the job `name` (which may hold blanks)."""
    return submission / "jobs" / name.replace(" ", "-")


def slurm_id(environ: Mapping[str, str] = os.environ) -> str:
    """This job's id as squeue shows it: `12`, or `12_3` for an array task; `local` where there is no Slurm."""
    array = environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environ['SLURM_ARRAY_TASK_ID']}" if array else environ.get("SLURM_JOB_ID", "local")


def attempt_folder(job: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of the attempt that runs now, from Slurm's own variables."""
    return job / ATTEMPTS / f"{slurm_id(environ)}-{environ.get('SLURM_RESTART_COUNT', '0')}"


def rank_events(attempt: Path, rank: int) -> Path:
    return attempt / f"rank-{rank}.jsonl"


def rank_beat(attempt: Path, rank: int) -> Path:
    return attempt / f"rank-{rank}.beat"
