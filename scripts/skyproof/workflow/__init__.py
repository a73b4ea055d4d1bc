"""What Snakemake uses of the package: configuration, code digests, plan, doctor, summary."""
