"""Where the units of a sweep run: processes of this machine, a Ray cluster, a SLURM one."""
