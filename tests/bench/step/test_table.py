"""The table of `bingo bench step`."""

from bingo.bench.step.table import table


def test_table(found: dict) -> None:
    lines = table(found)
    assert "batch 8, K=64 C=16" in lines[0]
    assert sum(line.startswith("ours bf16 channels-last  ") for line in lines) == 2
    assert sum(line.startswith("ours bf16 channels-last, cached keys") for line in lines) == 2
    assert "not judged here" in lines[-1]
    on_gpu = {**found, "shape": {**found["shape"], "device": "cuda:0"}}
    assert "reached" in table(on_gpu)[-1] or "unsure" in table(on_gpu)[-1]
