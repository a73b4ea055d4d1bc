"""SYSNet: the effect of imaging on the observed galaxy density, and the weights that correct it.

For each region: mock or tabulate -> split -> select -> tune -> train -> infer, baselines -> stack
-> evaluate; then one summary of all regions.
"""

SYSNET = PLANS["sysnet"]
SYSNET_BLOCKS = blocks(SYSNET.n_groups, CONFIG.sysnet.train.block_size)
SYSNET_FOLDS = "results/sysnet/{region}/split/folds.fits"
SYSNET_SELECTION = "results/sysnet/{region}/select/selection.json"
SYSNET_TUNING = "results/sysnet/{region}/tune/tuning.json"
SYSNET_MEMBERS = "results/sysnet/{region}/train/block-{block}.json"
SYSNET_ALL_MEMBERS = expand(SYSNET_MEMBERS, block=SYSNET_BLOCKS, allow_missing=True)
SYSNET_METRICS = "results/sysnet/{region}/evaluate/metrics.json"


wildcard_constraints:
    block=r"\d{5}",
    region="|".join(SYSNET.regions),


rule sysnet:
    """The verdict on all regions; the verdict and figures of a region are beside its files."""
    input:
        SYSNET.products,


rule sysnet_exports:
    """The networks of all regions in the format of the original, model_<fold>_<seed>/best.pth.tar."""
    input:
        expand("results/sysnet/{region}/export/export.json", region=SYSNET.regions),


rule sysnet_mock:
    """Make a sky of lognormal galaxies with known contamination, and its table."""
    output:
        table="results/sysnet/{region}/mock/table.fits",
        truth="results/sysnet/{region}/mock/truth.fits",
    log:
        "logs/sysnet/{region}/mock.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/mock.tsv"
    conda:
        "../envs/generate.yaml"
    threads: 2
    resources:
        **mpi("sysnet.mock"),
    params:
        **stage("sysnet.mock", image="generate"),
    shell:
        "{params.start} python -m skyproof sysnet.mock {params.files}"
        " --ranks {resources.tasks} {params.options} > {log} 2>&1"


rule sysnet_tabulate:
    """Assemble the table of a region from maps, or from a table of another layout."""
    input:
        unpack(SYSNET.sources),
    output:
        table="results/sysnet/{region}/tabulate/table.fits",
    log:
        "logs/sysnet/{region}/tabulate.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/tabulate.tsv"
    conda:
        "../envs/analyse.yaml"
    resources:
        **serial("sysnet.tabulate"),
    params:
        **stage("sysnet.tabulate", image="analyse"),
    shell:
        "{params.start} python -m skyproof sysnet.tabulate {params.files}"
        " {params.options} > {log} 2>&1"


rule sysnet_split:
    """Divide the rows into folds of separate sky."""
    input:
        table=SYSNET.table,
    output:
        folds=SYSNET_FOLDS,
    log:
        "logs/sysnet/{region}/split.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/split.tsv"
    conda:
        "../envs/analyse.yaml"
    resources:
        **serial("sysnet.split"),
    params:
        **stage("sysnet.split", image="analyse"),
    shell:
        "{params.start} python -m skyproof sysnet.split {params.files}"
        " {params.options} > {log} 2>&1"


rule sysnet_select:
    """Select the input features of the networks."""
    input:
        table=SYSNET.table,
        folds=SYSNET_FOLDS,
    output:
        selection=SYSNET_SELECTION,
    log:
        "logs/sysnet/{region}/select.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/select.tsv"
    conda:
        "../envs/generate.yaml"
    resources:
        **serial("sysnet.select"),
    params:
        **stage("sysnet.select", image="generate"),
    shell:
        "{params.start} python -m skyproof sysnet.select {params.files}"
        " {params.options} > {log} 2>&1"


rule sysnet_tune:
    """Search for learning rate, structure and L1 weight, or use those of the configuration."""
    input:
        table=SYSNET.table,
        folds=SYSNET_FOLDS,
        selection=SYSNET_SELECTION,
    output:
        tuning=SYSNET_TUNING,
    log:
        "logs/sysnet/{region}/tune.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/tune.tsv"
    conda:
        "../envs/train.yaml"
    threads: training_cores(1)
    resources:
        **serial("sysnet.tune"),
        cpus_per_task=training_threads,
        device="cpu",
    params:
        **stage("sysnet.tune", image="train"),
    shell:
        "{params.start} python -m skyproof sysnet.tune {params.files}"
        " --threads {resources.cpus_per_task} --device {resources.device}"
        " {params.options} > {log} 2>&1"


rule sysnet_train:
    """Train a block of groups of networks; a killed training resumes from its last checkpoint."""
    input:
        table=SYSNET.table,
        folds=SYSNET_FOLDS,
        selection=SYSNET_SELECTION,
        tuning=SYSNET_TUNING,
        start=SYSNET.start,
    output:
        members=SYSNET_MEMBERS,
    log:
        "logs/sysnet/{region}/train-{block}.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/train-{block}.tsv"
    conda:
        "../envs/train.yaml"
    threads: SYSNET.train_ranks
    resources:
        **mpi("sysnet.train", most=SYSNET.train_ranks),
        device="cpu",
    params:
        **stage("sysnet.train", image="train"),
    shell:
        "{params.start} python -m skyproof sysnet.train {params.files}"
        " --ranks {resources.tasks} --device {resources.device} {params.options} > {log} 2>&1"


rule sysnet_infer:
    """Predict every fold with the networks that were not trained on it."""
    input:
        table=SYSNET.table,
        folds=SYSNET_FOLDS,
        members=SYSNET_ALL_MEMBERS,
    output:
        weights="results/sysnet/{region}/infer/nn-weights.fits",
        metrics="results/sysnet/{region}/infer/metrics.npz",
        history="results/sysnet/{region}/infer/history.csv",
        lines="results/sysnet/{region}/infer/train.log",
    log:
        "logs/sysnet/{region}/infer.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/infer.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        **mpi("sysnet.infer"),
        device="cpu",
    params:
        **stage("sysnet.infer", image="train", members=braces(SYSNET_MEMBERS, SYSNET_BLOCKS)),
    shell:
        "{params.start} python -m skyproof sysnet.infer {params.files}"
        " --ranks {resources.tasks} --device {resources.device} {params.options} > {log} 2>&1"


rule sysnet_export:
    """Write the networks in the format of the original."""
    input:
        members=SYSNET_ALL_MEMBERS,
    output:
        export="results/sysnet/{region}/export/export.json",
    log:
        "logs/sysnet/{region}/export.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/export.tsv"
    conda:
        "../envs/train.yaml"
    resources:
        **serial("sysnet.export"),
    params:
        **stage("sysnet.export", image="train", members=braces(SYSNET_MEMBERS, SYSNET_BLOCKS)),
    shell:
        "{params.start} python -m skyproof sysnet.export {params.files}"
        " {params.options} > {log} 2>&1"


rule sysnet_baselines:
    """Predict every fold with a constant, linear, quadratic and forest model."""
    input:
        table=SYSNET.table,
        folds=SYSNET_FOLDS,
        selection=SYSNET_SELECTION,
    output:
        predictions="results/sysnet/{region}/baselines/predictions.fits",
    log:
        "logs/sysnet/{region}/baselines.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/baselines.tsv"
    conda:
        "../envs/analyse.yaml"
    resources:
        **serial("sysnet.baselines"),
    params:
        **stage("sysnet.baselines", image="analyse"),
    shell:
        "{params.start} python -m skyproof sysnet.baselines {params.files}"
        " {params.options} > {log} 2>&1"


rule sysnet_stack:
    """Combine the predictions into the selection function and the weights of the galaxies."""
    input:
        table=SYSNET.table,
        folds=SYSNET_FOLDS,
        features=SYSNET_SELECTION,
        baselines="results/sysnet/{region}/baselines/predictions.fits",
        weights="results/sysnet/{region}/infer/nn-weights.fits",
    output:
        selection="results/sysnet/{region}/stack/selection.fits",
        weights="results/sysnet/{region}/stack/weights.fits",
        stack="results/sysnet/{region}/stack/stack.json",
    log:
        "logs/sysnet/{region}/stack.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/stack.tsv"
    conda:
        "../envs/analyse.yaml"
    resources:
        **serial("sysnet.stack"),
    params:
        **stage("sysnet.stack", image="analyse"),
    shell:
        "{params.start} python -m skyproof sysnet.stack {params.files}"
        " {params.options} > {log} 2>&1"


rule sysnet_evaluate:
    """Measure the effect of the weights on the density, and compare with the truth if known."""
    input:
        table=SYSNET.table,
        truth=SYSNET.truth,
        folds=SYSNET_FOLDS,
        baselines="results/sysnet/{region}/baselines/predictions.fits",
        network="results/sysnet/{region}/infer/nn-weights.fits",
        history="results/sysnet/{region}/infer/history.csv",
        selection="results/sysnet/{region}/stack/selection.fits",
        stack="results/sysnet/{region}/stack/stack.json",
        tuning=SYSNET_TUNING,
    output:
        verdict=figure("sysnet/{region}/evaluate/verdict.md", "1 verdict"),
        maps=figure(
            "sysnet/{region}/evaluate/maps.png", "2 observed, predicted and corrected density"
        ),
        templates=figure(
            "sysnet/{region}/evaluate/templates.png", "3 density against each template"
        ),
        power=figure("sysnet/{region}/evaluate/power.png", "4 angular power before and after"),
        curves=figure("sysnet/{region}/evaluate/curves.png", "5 loss curves"),
        scan=figure("sysnet/{region}/evaluate/scan.png", "6 learning-rate scan"),
        nulltest=figure("sysnet/{region}/evaluate/nulltest.json", "7 null test"),
        metrics=figure("sysnet/{region}/evaluate/metrics.json", "8 all figures of merit"),
    log:
        "logs/sysnet/{region}/evaluate.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/evaluate.tsv"
    conda:
        "../envs/analyse.yaml"
    resources:
        **serial("sysnet.evaluate"),
    params:
        **stage("sysnet.evaluate", image="analyse"),
    shell:
        "{params.start} python -m skyproof sysnet.evaluate {params.files}"
        " {params.options} > {log} 2>&1"


rule sysnet_summarise:
    """One verdict on all regions."""
    input:
        metrics=expand(SYSNET_METRICS, region=SYSNET.regions),
    output:
        verdict=figure(
            "sysnet/summarise/verdict.md", "verdict", caption="regions", subcategory="all regions"
        ),
        metrics="results/sysnet/summarise/metrics.json",
    log:
        "logs/sysnet/summarise.log",
    benchmark:
        "logs/benchmarks/sysnet/summarise.tsv"
    conda:
        "../envs/analyse.yaml"
    resources:
        **serial("sysnet.summarise"),
    params:
        **stage("sysnet.summarise", image="analyse"),
    shell:
        "{params.start} python -m skyproof sysnet.summarise {params.files}"
        " {params.options} > {log} 2>&1"
