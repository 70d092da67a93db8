"""A real Slurm on one machine, for rehearsals and tests: as many nodes and GPUs as one likes, and faults on request."""
