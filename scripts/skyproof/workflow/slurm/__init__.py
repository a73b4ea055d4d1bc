"""SLURM as the Snakemake process that starts jobs uses it."""
