"""Stages as jobs: submitit local processes today, Slurm later. No torch at module level."""
