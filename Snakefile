"""Sky-survey learning systems: generate or ingest, split, train, infer, evaluate."""

from snakemake.utils import min_version

min_version("9.27")


configfile: f"{workflow.basedir}/config.yaml"


report: "rules/report/workflow.rst"


include: "rules/common.smk"
include: "rules/master.smk"


for system in CONFIG.systems:

    include: f"rules/{system}.smk"


include: "rules/verify.smk"


rule all:
    """All systems of the configuration, and the manifest of all products."""
    default_target: True
    input:
        [getattr(rules, system).input for system in CONFIG.systems],
        rules.manifest.output,
