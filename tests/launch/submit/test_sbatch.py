"""What sbatch is given, and its refusals as sentences that name the key to change."""

from pathlib import Path

import pytest

from bingo.launch.submit.sbatch import minutes, refusal, sbatch_words

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("error: invalid partition specified: gpu\nsbatch: error: Batch job submission failed: Invalid partition name "
         "specified", "site: sbatch refuses the job (invalid partition specified: gpu; Invalid partition name "
         "specified): change the key partition; "),
        ("error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
         "change the key time_min; "),
        ("error: Batch job submission failed: Node count specification invalid", "change the key nodes; "),
        ("error: Batch job submission failed: Invalid qos specification", "change the key qos; "),
        ("error: Batch job submission failed: Invalid feature specification", "change the key constraint; "),
        ("error: Batch job submission failed: Requested reservation is invalid", "change the key reservation; "),
        ("error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested node "
         "configuration is not available", "change the key mem_gb; "),
        ("error: Invalid generic resource (gres) specification", "change the key gpus_per_node (or gres); "),
        ("error: Batch job submission failed: Invalid job array specification", "sbatch refuses the job (Invalid job "
         "array specification): give --set fewer values: a sweep has at most as many runs"),
        ("error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
         "policy (job submit limit, user's size and/or time limits)", "each run of a sweep is one: give --set fewer"),
        ("error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
         "policy (job submit limit, user's size and/or time limits)", "limits)): so many jobs of yours may not"),
        ("error: Slurm temporarily unable to accept job, sleeping and retrying\nsbatch: error: Batch job submission "
         "failed: Resource temporarily unavailable", "(MaxJobCount): wait"),
        ("error: Slurm job queue full, sleeping and retrying.\nsbatch: error: Batch job submission failed: Unable to "
         "create job record, try again", "(MaxJobCount): wait"),
        ("error: Batch job submission failed: Requested node configuration is not available", "cpus_per_rank"),
        ("error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
         "time limits)", "change the key qos or account; "),
        ("unrecognized option '--frobnicate=3'\nTry \"sbatch --help\" for more information", "key sbatch.frob"),
        ("error: Batch job submission failed: Unable to contact slurm controller (connect failure)", "does not answer"),
        ("", "it printed no reason"),
    ],
)  # fmt: skip
def test_refusals_name_the_key_to_change(said: str, sentence: str) -> None:
    found = refusal(said and f"sbatch: {said}", Path("site"))
    assert sentence in found
    assert "\n" not in found


def test_refusals_name_the_flag_that_gave_the_value() -> None:
    said = "sbatch: error: Batch job submission failed: Invalid "
    found = refusal(said + "qos specification", Path("site"), {"qos"})
    assert found.startswith("sbatch refuses the job (Invalid qos specification): change --qos; `sacctmgr")
    assert "change --exclude or --nodelist; " in refusal(
        said + "node name specified", Path("s"), {"exclude", "nodelist"}
    )
    assert "change --nodes or --nodelist; " in refusal(
        "sbatch: error: invalid number of nodes (-N 2-1)", Path("s"), {"nodes", "nodelist"}
    )
    assert "site: sbatch refuses" in refusal(said + "account", Path("site"), {"qos"})


def test_commands() -> None:
    words = sbatch_words(Path("/s.sh"), ["3", "4"], ["9_1"], "0,2%2")
    assert words == ["sbatch", "--parsable", "--dependency=afterok:3:4,afterany:9_1", "--array=0,2%2", "/s.sh"]
    assert [minutes(t) for t in ("infinite", "30:00", "1-02:00:00", "2:30:00", "45")] == [
        float("inf"),
        30,
        1560,
        150,
        0.75,
    ]
