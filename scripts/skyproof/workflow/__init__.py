"""What Snakemake asks of the package: the configuration, code digests, the summary of a run."""
