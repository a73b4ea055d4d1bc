"""SYSNet: how much of the galaxy density is the imaging's, and the weights that undo it.

For each region: mock or tabulate -> split -> select -> tune -> train -> infer, baselines -> stack
-> evaluate; then one summary of all regions.
"""

from skyproof.sysnet.plan import Plan as SysnetPlan
from skyproof.sysnet.plan import words as sysnet_words

SYSNET = SysnetPlan(CONFIG.sysnet)
SYSNET_BLOCKS = blocks(SYSNET.n_groups, CONFIG.sysnet.train.block_size)
SYSNET_RANKS = ranks_up_to(SYSNET.train_ranks)
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
    """The verdict on all regions; each region's own verdict and figures stand beside its files."""
    input:
        SYSNET.products,


rule sysnet_export:
    """The networks of all regions in the original's files, model_<fold>_<seed>/best.pth.tar."""
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
        mpi=launcher(one_rank_each),
        tasks=one_rank_each,
        nodes=nodes_of(one_rank_each),
        cpus_per_task=1,
        mem_mb=per_rank(600 + 3 * SYSNET.table_mb),
        runtime=doubling(SYSNET.table_minutes),
    params:
        image=image("generate"),
        inside=inside("generate"),
        job=SYSNET.job("sysnet.mock"),
        options=options("sysnet.mock"),
        code=code("sysnet.mock"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof sysnet.mock"
        " --out table={output.table} truth={output.truth} --ranks {resources.tasks}"
        " {params.job} {params.options} > {log} 2>&1"


rule sysnet_tabulate:
    """Put the table of a region together from maps, or from a table of another layout."""
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
    container:
        image("analyse")
    resources:
        mem_mb=doubling(600 + 6 * SYSNET.table_mb),
        runtime=doubling(SYSNET.table_minutes),
    params:
        files=lambda wildcards, input: sysnet_words(input),
        job=SYSNET.job("sysnet.tabulate"),
        options=options("sysnet.tabulate"),
        code=code("sysnet.tabulate"),
    shell:
        "python -m skyproof sysnet.tabulate --in {params.files} --out table={output.table}"
        " {params.job} {params.options} > {log} 2>&1"


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
    container:
        image("analyse")
    resources:
        mem_mb=doubling(600 + 4 * SYSNET.table_mb),
        runtime=doubling(SYSNET.table_minutes),
    params:
        options=options("sysnet.split"),
        code=code("sysnet.split"),
    shell:
        "python -m skyproof sysnet.split --in table={input.table} --out folds={output.folds}"
        " {params.options} > {log} 2>&1"


rule sysnet_select:
    """Choose the features that the networks see."""
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
    container:
        image("generate")
    resources:
        mem_mb=doubling(600 + 4 * SYSNET.table_mb),
        runtime=doubling(SYSNET.table_minutes),
    params:
        options=options("sysnet.select"),
        code=code("sysnet.select"),
    shell:
        "python -m skyproof sysnet.select --in table={input.table} folds={input.folds}"
        " --out selection={output.selection} {params.options} > {log} 2>&1"


rule sysnet_tune:
    """Search for learning rate, structure and L1 weight, or take the configuration's."""
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
        launch="env",
        cpus_per_task=training_threads,
        device="cpu",
        mem_mb=doubling(SYSNET.train_mb),
        runtime=doubling(SYSNET.tune_minutes),
    params:
        image=image("train"),
        inside=inside("train"),
        options=options("sysnet.tune"),
        code=code("sysnet.tune"),
    shell:
        "{resources.launch} {params.inside} python -m skyproof sysnet.tune --in table={input.table}"
        " folds={input.folds} selection={input.selection} --out tuning={output.tuning}"
        " --threads {resources.cpus_per_task} --device {resources.device} {params.options}"
        " > {log} 2>&1"


rule sysnet_train:
    """Train a block of groups of networks; a killed training resumes where it was."""
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
        mpi=launcher(SYSNET_RANKS),
        tasks=SYSNET_RANKS,
        nodes=nodes_of(SYSNET_RANKS),
        cpus_per_task=1,
        device="cpu",
        mem_mb=per_rank(SYSNET.train_mb, SYSNET_RANKS),
        runtime=doubling(SYSNET.train_minutes),
    params:
        image=image("train"),
        inside=inside("train"),
        files=lambda wildcards, input: sysnet_words(input),
        options=options("sysnet.train"),
        code=code("sysnet.train"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof sysnet.train"
        " --in {params.files} --out members={output.members}"
        " --ranks {resources.tasks} --device {resources.device}"
        " --block {wildcards.block} {params.options} > {log} 2>&1"


rule sysnet_infer:
    """Predict every fold with the networks that have not seen it."""
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
        mpi=launcher(one_rank_each),
        tasks=one_rank_each,
        nodes=nodes_of(one_rank_each),
        cpus_per_task=1,
        device="cpu",
        mem_mb=per_rank(SYSNET.infer_mb),
        runtime=doubling(5 + SYSNET.train_minutes / 4),
    params:
        image=image("train"),
        inside=inside("train"),
        members=braces(SYSNET_MEMBERS, SYSNET_BLOCKS),
        options=options("sysnet.infer"),
        code=code("sysnet.infer"),
    shell:
        "{resources.mpi} {params.inside} python -m skyproof sysnet.infer"
        " --in table={input.table} folds={input.folds} members={params.members}"
        " --out weights={output.weights} metrics={output.metrics} history={output.history}"
        " lines={output.lines}"
        " --ranks {resources.tasks} --device {resources.device} {params.options} > {log} 2>&1"


rule sysnet_export_region:
    """Write the networks in the original's files, for its own readers."""
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
    container:
        image("train")
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(30),
    params:
        members=braces(SYSNET_MEMBERS, SYSNET_BLOCKS),
        options=options("sysnet.export"),
        code=code("sysnet.export"),
    shell:
        "python -m skyproof sysnet.export --in members={params.members}"
        " --out export={output.export} {params.options} > {log} 2>&1"


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
    container:
        image("analyse")
    resources:
        mem_mb=doubling(1000 + 10 * SYSNET.table_mb),
        runtime=doubling(2 * SYSNET.table_minutes),
    params:
        options=options("sysnet.baselines"),
        code=code("sysnet.baselines"),
    shell:
        "python -m skyproof sysnet.baselines --in table={input.table} folds={input.folds}"
        " selection={input.selection} --out predictions={output.predictions}"
        " {params.options} > {log} 2>&1"


rule sysnet_stack:
    """Mix the predictions to the selection function, and give galaxies their weights."""
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
    container:
        image("analyse")
    resources:
        mem_mb=doubling(1000 + 6 * SYSNET.table_mb),
        runtime=doubling(SYSNET.table_minutes),
    params:
        options=options("sysnet.stack"),
        code=code("sysnet.stack"),
    shell:
        "python -m skyproof sysnet.stack --in table={input.table} folds={input.folds}"
        " features={input.features} baselines={input.baselines} weights={input.weights}"
        " --out selection={output.selection} weights={output.weights} stack={output.stack}"
        " {params.options} > {log} 2>&1"


rule sysnet_evaluate:
    """Say what the weights do to the density, and whether that is right where truth is known."""
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
        verdict=report(
            "results/sysnet/{region}/evaluate/verdict.md",
            caption="report/sysnet_verdict.rst",
            category="SYSNet",
            subcategory="{region}",
            labels={"result": "1 verdict"},
        ),
        maps=report(
            "results/sysnet/{region}/evaluate/maps.png",
            caption="report/sysnet_maps.rst",
            category="SYSNet",
            subcategory="{region}",
            labels={"result": "2 observed, predicted and corrected density"},
        ),
        templates=report(
            "results/sysnet/{region}/evaluate/templates.png",
            caption="report/sysnet_templates.rst",
            category="SYSNet",
            subcategory="{region}",
            labels={"result": "3 density against each template"},
        ),
        power=report(
            "results/sysnet/{region}/evaluate/power.png",
            caption="report/sysnet_power.rst",
            category="SYSNet",
            subcategory="{region}",
            labels={"result": "4 angular power before and after"},
        ),
        curves=report(
            "results/sysnet/{region}/evaluate/curves.png",
            caption="report/sysnet_curves.rst",
            category="SYSNet",
            subcategory="{region}",
            labels={"result": "5 loss curves"},
        ),
        scan=report(
            "results/sysnet/{region}/evaluate/scan.png",
            caption="report/sysnet_scan.rst",
            category="SYSNet",
            subcategory="{region}",
            labels={"result": "6 learning-rate scan"},
        ),
        nulltest=report(
            "results/sysnet/{region}/evaluate/nulltest.json",
            caption="report/sysnet_nulltest.rst",
            category="SYSNet",
            subcategory="{region}",
            labels={"result": "7 null test"},
        ),
        metrics=report(
            SYSNET_METRICS,
            caption="report/sysnet_metrics.rst",
            category="SYSNet",
            subcategory="{region}",
            labels={"result": "8 all figures of merit"},
        ),
    log:
        "logs/sysnet/{region}/evaluate.log",
    benchmark:
        "logs/benchmarks/sysnet/{region}/evaluate.tsv"
    conda:
        "../envs/analyse.yaml"
    container:
        image("analyse")
    resources:
        mem_mb=doubling(2000 + 10 * SYSNET.table_mb),
        runtime=doubling(10 * SYSNET.table_minutes),
    params:
        files=lambda wildcards, input: sysnet_words(input),
        job=SYSNET.job("sysnet.evaluate"),
        options=options("sysnet.evaluate"),
        code=code("sysnet.evaluate"),
    shell:
        "python -m skyproof sysnet.evaluate --in {params.files}"
        " --out verdict={output.verdict} maps={output.maps} templates={output.templates}"
        " power={output.power} curves={output.curves} scan={output.scan}"
        " nulltest={output.nulltest} metrics={output.metrics}"
        " {params.job} {params.options} > {log} 2>&1"


rule sysnet_summarise:
    """One verdict on all regions."""
    input:
        metrics=expand(SYSNET_METRICS, region=SYSNET.regions),
    output:
        verdict=report(
            "results/sysnet/evaluate/verdict.md",
            caption="report/sysnet_regions.rst",
            category="SYSNet",
            subcategory="all regions",
            labels={"result": "verdict"},
        ),
        metrics="results/sysnet/evaluate/metrics.json",
    log:
        "logs/sysnet/summarise.log",
    benchmark:
        "logs/benchmarks/sysnet/summarise.tsv"
    conda:
        "../envs/analyse.yaml"
    container:
        image("analyse")
    resources:
        mem_mb=doubling(600),
        runtime=doubling(5),
    params:
        files=lambda wildcards, input: sysnet_words(input),
        options=options("sysnet.summarise"),
        code=code("sysnet.summarise"),
    shell:
        "python -m skyproof sysnet.summarise --in {params.files}"
        " --out verdict={output.verdict} metrics={output.metrics} {params.options} > {log} 2>&1"
