"""Obiwan: can a network tell injected galaxies from real ones?

Bricks are simulated, reduced from real exposures (ingest), or those of a release. Then follow:
cutouts -> assign -> split -> train -> infer -> evaluate.
"""

OBIWAN = PLANS["obiwan"]
OBIWAN_BLOCKS = blocks(OBIWAN.n_bricks, CONFIG.obiwan.block_size)
OBIWAN_CUTOUTS = "results/obiwan/cutouts/block-{block}.json"
OBIWAN_SPLIT = "results/obiwan/split/block-{block}.json"


wildcard_constraints:
    block=r"\d{5}",


rule obiwan:
    """The verdict and its figures."""
    input:
        "results/obiwan/evaluate/verdict.md",


rule obiwan_simulate:
    """Make bricks with known truth in the survey's layout."""
    output:
        bricks="results/obiwan/simulate/simulated-{block}.json",
    log:
        "logs/obiwan/simulate-{block}.log",
    benchmark:
        "logs/benchmarks/obiwan/simulate-{block}.tsv"
    conda:
        "../envs/generate.yaml"
    threads: 2
    resources:
        **mpi("obiwan.simulate"),
    params:
        **stage("obiwan.simulate", image="generate"),
    shell:
        "{params.start} python -m skyproof obiwan.simulate {params.files}"
        " --ranks {resources.tasks} {params.options} > {log} 2>&1"


rule obiwan_ingest:
    """Reduce real exposures to bricks and inject galaxies into them."""
    input:
        ccds=CONFIG.obiwan.exposures.ccds or [],
    output:
        bricks="results/obiwan/ingest/ingested-{block}.json",
    log:
        "logs/obiwan/ingest-{block}.log",
    benchmark:
        "logs/benchmarks/obiwan/ingest-{block}.tsv"
    conda:
        "../envs/generate.yaml"
    threads: 2
    resources:
        **mpi("obiwan.ingest"),
    params:
        **stage("obiwan.ingest", image="generate", **OBIWAN.folders("ingest")),
    shell:
        "{params.start} python -m skyproof obiwan.ingest {params.files}"
        " --ranks {resources.tasks} {params.options} > {log} 2>&1"


rule obiwan_cutouts:
    """Cut stamps of image and inverse variance around the selected sources."""
    input:
        bricks=OBIWAN.bricks,
    output:
        cutouts=OBIWAN_CUTOUTS,
    log:
        "logs/obiwan/cutouts-{block}.log",
    benchmark:
        "logs/benchmarks/obiwan/cutouts-{block}.tsv"
    conda:
        "../envs/generate.yaml"
    threads: 2
    resources:
        **mpi("obiwan.cutouts"),
    params:
        **stage("obiwan.cutouts", image="generate", **OBIWAN.folders("cutouts")),
    shell:
        "{params.start} python -m skyproof obiwan.cutouts {params.files}"
        " --ranks {resources.tasks} {params.options} > {log} 2>&1"


rule obiwan_assign:
    """Assign bricks to the training and the test part, and find their overlaps on the sky."""
    input:
        cutouts=expand(OBIWAN_CUTOUTS, block=OBIWAN_BLOCKS),
    output:
        membership="results/obiwan/assign/membership.csv",
    log:
        "logs/obiwan/assign.log",
    benchmark:
        "logs/benchmarks/obiwan/assign.tsv"
    conda:
        "../envs/generate.yaml"
    resources:
        **serial("obiwan.assign"),
    params:
        **stage("obiwan.assign", image="generate", cutouts=braces(OBIWAN_CUTOUTS, OBIWAN_BLOCKS)),
    shell:
        "{params.start} python -m skyproof obiwan.assign {params.files}"
        " {params.options} > {log} 2>&1"


rule obiwan_split:
    """Write the shuffled arrays of the training and the test part."""
    input:
        cutouts=OBIWAN_CUTOUTS,
        membership="results/obiwan/assign/membership.csv",
    output:
        split=OBIWAN_SPLIT,
    log:
        "logs/obiwan/split-{block}.log",
    benchmark:
        "logs/benchmarks/obiwan/split-{block}.tsv"
    conda:
        "../envs/generate.yaml"
    threads: 2
    resources:
        **mpi("obiwan.split"),
    params:
        **stage("obiwan.split", image="generate"),
    shell:
        "{params.start} python -m skyproof obiwan.split {params.files}"
        " --ranks {resources.tasks} {params.options} > {log} 2>&1"


rule obiwan_train:
    """Train the network; a killed training resumes from its last checkpoint."""
    input:
        split=expand(OBIWAN_SPLIT, block=OBIWAN_BLOCKS),
    output:
        model="results/obiwan/train/model.safetensors",
        history="results/obiwan/train/history.csv",
    log:
        "logs/obiwan/train.log",
    benchmark:
        "logs/benchmarks/obiwan/train.tsv"
    conda:
        "../envs/train.yaml"
    threads: training_cores(OBIWAN.micro_batches)
    resources:
        **training("obiwan.train"),
        device="cpu",
    params:
        **stage("obiwan.train", image="train", split=braces(OBIWAN_SPLIT, OBIWAN_BLOCKS)),
    shell:
        "{params.start} python -m skyproof obiwan.train {params.files}"
        " --ranks {resources.tasks} --threads {resources.cpus_per_task}"
        " --device {resources.device} {params.options} > {log} 2>&1"


rule obiwan_infer:
    """Score the test part: the probability that a source was injected."""
    input:
        model="results/obiwan/train/model.safetensors",
        split=expand(OBIWAN_SPLIT, block=OBIWAN_BLOCKS),
    output:
        scores="results/obiwan/infer/scores.parquet",
    log:
        "logs/obiwan/infer.log",
    benchmark:
        "logs/benchmarks/obiwan/infer.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        **mpi("obiwan.infer"),
        device="cpu",
    params:
        **stage("obiwan.infer", image="train", split=braces(OBIWAN_SPLIT, OBIWAN_BLOCKS)),
    shell:
        "{params.start} python -m skyproof obiwan.infer {params.files}"
        " --ranks {resources.tasks} --device {resources.device} {params.options} > {log} 2>&1"


rule obiwan_evaluate:
    """Measure how well the classes are distinguished, and by which properties."""
    input:
        scores="results/obiwan/infer/scores.parquet",
        history="results/obiwan/train/history.csv",
        split=expand(OBIWAN_SPLIT, block=OBIWAN_BLOCKS),
    output:
        metrics=figure("obiwan/evaluate/metrics.json", "6 all figures of merit"),
        verdict=figure("obiwan/evaluate/verdict.md", "1 verdict"),
        mosaic=figure("obiwan/evaluate/mosaic.png", "2 real and injected galaxies"),
        roc=figure("obiwan/evaluate/roc.png", "3 receiver operating characteristic"),
        magnitude=figure("obiwan/evaluate/magnitude.png", "4 accuracy by magnitude"),
        curves=figure("obiwan/evaluate/curves.png", "5 training curves"),
    log:
        "logs/obiwan/evaluate.log",
    benchmark:
        "logs/benchmarks/obiwan/evaluate.tsv"
    conda:
        "../envs/analyse.yaml"
    resources:
        **serial("obiwan.evaluate"),
    params:
        **stage("obiwan.evaluate", image="analyse", split=braces(OBIWAN_SPLIT, OBIWAN_BLOCKS)),
    shell:
        "{params.start} python -m skyproof obiwan.evaluate {params.files}"
        " {params.options} > {log} 2>&1"
