"""cluster=slurm: every stage is a job of SLURM's. All that speaks SLURM is in this folder."""

from pipeline.executors.slurm.executor import Slurm

EXECUTOR = Slurm()
