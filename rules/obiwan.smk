"""Obiwan: can a network tell injected galaxies from real ones?

Bricks are simulated, reduced from real exposures (ingest), or those of a release; then for each:
cutouts -> assign -> split -> train -> infer -> evaluate.
"""

from skyproof.obiwan.plan import Plan

OBIWAN = Plan(CONFIG.obiwan)
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
        bricks="results/obiwan/bricks/simulated-{block}.json",
    log:
        "logs/obiwan/simulate-{block}.log",
    benchmark:
        "logs/benchmarks/obiwan/simulate-{block}.tsv"
    conda:
        "../envs/generate.yaml"
    threads: 2
    resources:
        mpi=launcher(one_rank_each),
        tasks=one_rank_each,
        nodes=nodes_of(one_rank_each),
        cpus_per_task=1,
        mem_mb=per_rank(OBIWAN.simulate_mb),
        runtime=doubling(OBIWAN.minutes),
    params:
        image=image("generate"),
        inside=inside("generate"),
        options=options("obiwan.simulate"),
        code=code("obiwan.simulate"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof obiwan.simulate"
        " --out bricks={output.bricks} --ranks {resources.tasks}"
        " --block {wildcards.block} {params.options} > {log} 2>&1"


rule obiwan_ingest:
    """Reduce real exposures to bricks and inject galaxies into them."""
    input:
        ccds=CONFIG.obiwan.exposures.ccds or [],
    output:
        bricks="results/obiwan/bricks/ingested-{block}.json",
    log:
        "logs/obiwan/ingest-{block}.log",
    benchmark:
        "logs/benchmarks/obiwan/ingest-{block}.tsv"
    conda:
        "../envs/generate.yaml"
    threads: 2
    resources:
        mpi=launcher(one_rank_each),
        tasks=one_rank_each,
        nodes=nodes_of(one_rank_each),
        cpus_per_task=1,
        mem_mb=per_rank(OBIWAN.brick_mb * 3 + 500),
        runtime=doubling(OBIWAN.minutes * 10),
    params:
        image=image("generate"),
        inside=inside("generate"),
        images=CONFIG.obiwan.exposures.images,
        calib=CONFIG.obiwan.exposures.calib,
        options=options("obiwan.ingest"),
        code=code("obiwan.ingest"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof obiwan.ingest"
        " --in ccds={input.ccds:q} images={params.images:q} calib={params.calib:q}"
        " --out bricks={output.bricks} --ranks {resources.tasks}"
        " {params.options} > {log} 2>&1"


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
        mpi=launcher(one_rank_each),
        tasks=one_rank_each,
        nodes=nodes_of(one_rank_each),
        cpus_per_task=1,
        mem_mb=per_rank(OBIWAN.cutouts_mb),
        runtime=doubling(OBIWAN.minutes),
    params:
        image=image("generate"),
        inside=inside("generate"),
        trees=OBIWAN.trees,
        options=options("obiwan.cutouts"),
        code=code("obiwan.cutouts"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof obiwan.cutouts"
        " --in bricks={input.bricks:q} {params.trees}"
        " --out cutouts={output.cutouts} --ranks {resources.tasks}"
        " --block {wildcards.block} {params.options} > {log} 2>&1"


rule obiwan_assign:
    """Assign bricks to the training and the test part, and find where they share sky."""
    input:
        cutouts=expand(OBIWAN_CUTOUTS, block=OBIWAN_BLOCKS),
    output:
        membership="results/obiwan/split/membership.csv",
    log:
        "logs/obiwan/assign.log",
    benchmark:
        "logs/benchmarks/obiwan/assign.tsv"
    conda:
        "../envs/generate.yaml"
    container:
        image("generate")
    resources:
        mem_mb=doubling(500 + OBIWAN.n_bricks / 100),
        runtime=doubling(5),
    params:
        cutouts=braces(OBIWAN_CUTOUTS, OBIWAN_BLOCKS),
        options=options("obiwan.assign"),
        code=code("obiwan.assign"),
    shell:
        "python -m skyproof obiwan.assign --in cutouts={params.cutouts}"
        " --out membership={output.membership} {params.options} > {log} 2>&1"


rule obiwan_split:
    """Write the shuffled arrays of the training and the test part."""
    input:
        cutouts=OBIWAN_CUTOUTS,
        membership="results/obiwan/split/membership.csv",
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
        mpi=launcher(one_rank_each),
        tasks=one_rank_each,
        nodes=nodes_of(one_rank_each),
        cpus_per_task=1,
        mem_mb=per_rank(OBIWAN.split_mb),
        runtime=doubling(OBIWAN.minutes),
    params:
        image=image("generate"),
        inside=inside("generate"),
        options=options("obiwan.split"),
        code=code("obiwan.split"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof obiwan.split"
        " --in cutouts={input.cutouts} membership={input.membership}"
        " --out split={output.split} --ranks {resources.tasks}"
        " {params.options} > {log} 2>&1"


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
        mpi=launcher(training_ranks),
        tasks=training_ranks,
        nodes=nodes_of(training_ranks),
        cpus_per_task=training_threads,
        device="cpu",
        mem_mb=doubling(4000),
        runtime=doubling(OBIWAN.train_minutes),
    params:
        image=image("train"),
        inside=inside("train"),
        split=braces(OBIWAN_SPLIT, OBIWAN_BLOCKS),
        options=options("obiwan.train"),
        code=code("obiwan.train"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof obiwan.train"
        " --in split={params.split} --out model={output.model} history={output.history}"
        " --ranks {resources.tasks} --threads {resources.cpus_per_task} --device {resources.device} {params.options} > {log} 2>&1"


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
        mpi=launcher(one_rank_each),
        tasks=one_rank_each,
        nodes=nodes_of(one_rank_each),
        cpus_per_task=1,
        device="cpu",
        mem_mb=per_rank(2000),
        runtime=doubling(OBIWAN.infer_minutes),
    params:
        image=image("train"),
        inside=inside("train"),
        split=braces(OBIWAN_SPLIT, OBIWAN_BLOCKS),
        options=options("obiwan.infer"),
        code=code("obiwan.infer"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof obiwan.infer"
        " --in model={input.model} split={params.split} --out scores={output.scores}"
        " --ranks {resources.tasks} --device {resources.device} {params.options} > {log} 2>&1"


rule obiwan_evaluate:
    """Say how well the classes are told apart, and by what."""
    input:
        scores="results/obiwan/infer/scores.parquet",
        history="results/obiwan/train/history.csv",
        split=expand(OBIWAN_SPLIT, block=OBIWAN_BLOCKS),
    output:
        metrics=report(
            "results/obiwan/evaluate/metrics.json",
            caption="report/obiwan_metrics.rst",
            category="Obiwan",
            labels={"result": "6 all figures of merit"},
        ),
        verdict=report(
            "results/obiwan/evaluate/verdict.md",
            caption="report/obiwan_verdict.rst",
            category="Obiwan",
            labels={"result": "1 verdict"},
        ),
        mosaic=report(
            "results/obiwan/evaluate/mosaic.png",
            caption="report/obiwan_mosaic.rst",
            category="Obiwan",
            labels={"result": "2 real and injected galaxies"},
        ),
        roc=report(
            "results/obiwan/evaluate/roc.png",
            caption="report/obiwan_roc.rst",
            category="Obiwan",
            labels={"result": "3 receiver operating characteristic"},
        ),
        magnitude=report(
            "results/obiwan/evaluate/magnitude.png",
            caption="report/obiwan_magnitude.rst",
            category="Obiwan",
            labels={"result": "4 accuracy by magnitude"},
        ),
        curves=report(
            "results/obiwan/evaluate/curves.png",
            caption="report/obiwan_curves.rst",
            category="Obiwan",
            labels={"result": "5 training curves"},
        ),
    log:
        "logs/obiwan/evaluate.log",
    benchmark:
        "logs/benchmarks/obiwan/evaluate.tsv"
    conda:
        "../envs/analyse.yaml"
    container:
        image("analyse")
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(OBIWAN.evaluate_minutes),
    params:
        split=braces(OBIWAN_SPLIT, OBIWAN_BLOCKS),
        options=options("obiwan.evaluate"),
        code=code("obiwan.evaluate"),
    shell:
        "python -m skyproof obiwan.evaluate --in scores={input.scores} history={input.history}"
        " split={params.split} --out metrics={output.metrics} verdict={output.verdict}"
        " mosaic={output.mosaic} roc={output.roc} magnitude={output.magnitude}"
        " curves={output.curves} {params.options} > {log} 2>&1"
