"""How the Snakemake process that submits jobs uses SLURM."""
