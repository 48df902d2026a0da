"""Running the cells of a study: its folder, locks, local processes and SLURM."""
