"""Proof: the manifest of all products, and the check of all files against it."""

import os
import sys
from shlex import join

from skyproof.workflow.plan.systems import hashing_hours, megabytes

# The time limit for hashing all products: a slow disk gives an eighth of the estimated rate.
HASHING_MINUTES = 60 + 8 * 60 * hashing_hours(megabytes(CONFIG), cores=1)

ROOT = report(
    "results/root.txt",
    caption="report/root.rst",
    category="Proof",
    labels={"result": "root"},
)

# Receipts and provenance contain the command of the run; jobs inherit it.
os.environ.setdefault("SKYPROOF_WORKFLOW", join(sys.argv))


rule manifest:
    """Collect the checksums of all products from the receipts of the jobs, and check them."""
    input:
        [getattr(rules, system).input for system in CONFIG.systems],
    output:
        manifest="results/manifest.json",
        root=ROOT,
        sums="results/manifest-sha256.txt",
        provenance="results/provenance.json",
    log:
        "logs/manifest.log",
    benchmark:
        "logs/benchmarks/manifest.tsv"
    conda:
        "../envs/analyse.yaml"
    threads: 2
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(HASHING_MINUTES),
    params:
        **inside("analyse"),
    shell:
        "{params.start} python -m skyproof manifest results --products {input}"
        " --threads {threads} > {log} 2>&1"


rule verify:
    """Check all products against the manifest and print the result, at each call."""
    input:
        "results/manifest.json",
    log:
        "logs/verify.log",
    conda:
        "../envs/analyse.yaml"
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(HASHING_MINUTES),
    params:
        **inside("analyse"),
    shell:
        "{params.start} python -m skyproof verify results 2>&1 | tee {log}"
