"""Where stages run: one interface; in this process, in processes of this machine, as SLURM jobs."""
