"""Helpers of all systems - the checked configuration, options, code digests, images, resources."""

import os
import sys
from shlex import join, quote

from snakemake.exceptions import WorkflowError
from snakemake.resources import Resource
from snakemake.settings.types import DeploymentMethod

# The package comes from the checkout, here and in every job, environment or image.
SCRIPTS = f"{workflow.basedir}/scripts"
sys.path.insert(0, SCRIPTS)

from skyproof.core.errors import SkyproofError
from skyproof.core.options import to_words
from skyproof.containers.definition import definition
from skyproof.workflow.code import code_digest
from skyproof.workflow.config import load, stage_options

IN_IMAGES = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
if IN_IMAGES:
    # Snakemake binds the run's folder; the checkout may lie elsewhere.
    bind = f"--bind {quote(str(workflow.basedir))}"
    if bind not in workflow.deployment_settings.apptainer_args:
        workflow.deployment_settings.apptainer_args += f" {bind}"

try:
    CONFIG = load(config)
except SkyproofError as error:
    raise WorkflowError(str(error))


def site(word, otherwise):
    """A word of the site, which a profile sets for all rules (default-resources), or `otherwise`."""
    words = workflow.resource_settings.default_resources or {}
    return words[word].raw if word in words else otherwise


# What each job's shell does first. (A prefix of one's own takes the place of Snakemake's, hence its
# strict mode is said again.) A site may set variables there: libraries read them when they start.
VARIABLES = site("environment", "")
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={quote(SCRIPTS)}"
    f"{' ' + VARIABLES if VARIABLES else ''}; "
)
# How a site starts MPI ranks, and on how many nodes; on one machine, mpiexec.
LAUNCHER = site("launcher", "mpiexec")
NODES = site("mpi_nodes", 1)
# The SLURM executor looks for a relative path in the folder of the run, not of the checkout.
if site("partitions", ""):
    os.environ.setdefault(
        "SNAKEMAKE_SLURM_PARTITIONS", os.path.join(workflow.basedir, site("partitions", ""))
    )


def options(stage):
    """The stage's options as words of its command line: exactly what it reads, nothing else."""
    return join(to_words(stage_options(CONFIG, stage)))


def code(stage):
    """A parameter that changes with any line of ours that the stage imports."""
    return code_digest(stage)


def image(environment):
    """The image of an environment, where rules run in images.

    Its name changes with its definition and locks, which runs the rule again.
    """
    return str(definition(environment).image) if IN_IMAGES else None


def inside(environment):
    """The words that enter an image on each rank, as MPI's launcher has to stay outside.

    (A function of resources, as what follows from them re-runs nothing. `container:` would put the
    whole line inside; hence such rules have `image` among their parameters.)
    """

    def words(wildcards, resources):
        if not IN_IMAGES:
            return ""
        device = resources.get("device", "cpu")
        gpu = "--nv " if device == "cuda" else ""
        arguments = workflow.deployment_settings.apptainer_args
        entered = definition(environment, device=device).image
        return f'apptainer exec {gpu}--home "$PWD" {arguments} {entered}'

    return words


def on_gpus():
    """Whether jobs of some rule run on GPUs (set-resources, in a profile or a command line)."""
    given = workflow.resource_settings.overwrite_resources.values()
    return any(words["device"].raw == "cuda" for words in given if "device" in words)


def blocks(items, block_size):
    """Five-digit names of the blocks that so many items make."""
    return [f"{number:05d}" for number in range(-(-items // block_size))]


def braces(pattern, names):
    """Name the files of all blocks in one short word, which the shell expands.

    A line that spells out thousands of files is longer than the kernel takes. (A function, as
    Snakemake would take the braces for a wildcard.)
    """
    word = f"{{{names[0]}..{names[-1]}}}"
    return lambda wildcards: pattern.format(**{**dict(wildcards.items()), "block": word})


def doubling(amount):
    """A resource that is doubled at each further attempt."""
    return lambda wildcards, attempt: int(amount * 2 ** (attempt - 1))


# A number that a profile or --set-resources puts in the place of a rule's amount doubles likewise;
# else further attempts would die of the same lack.
for words in workflow.resource_settings.overwrite_resources.values():
    for name in {"mem_mb", "mem_mb_per_cpu", "runtime"} & set(words):
        if not words[name].is_evaluable():
            amount = f"{words[name].value} * 2 ** (attempt - 1)"
            words[name] = Resource.from_cli_expression(name, amount)


# What Snakemake itself takes in a batch job: two processes inside one another.
SNAKEMAKE_MB = 300


def one_rank_each(wildcards, threads):
    """MPI stages turn the cores that they get into ranks of one thread; a site may say how many."""
    return site("mpi_ranks", threads)


def ranks_up_to(most):
    """As many ranks of one thread as there are, but not more than have something to do."""
    return lambda wildcards, threads: min(one_rank_each(wildcards, threads), most)


def per_rank(amount, ranks=one_rank_each):
    """Memory of a node for so much a rank, doubled at each further attempt."""
    return lambda wildcards, threads, attempt: int(
        SNAKEMAKE_MB + amount * -(-ranks(wildcards, threads) // NODES) * 2 ** (attempt - 1)
    )


def launcher(ranks):
    """What starts the ranks, their number included; nothing for one, which needs no MPI."""

    def words(wildcards, threads):
        number = ranks(wildcards, threads)
        return f"{LAUNCHER} -n {number}" if number > 1 else ""

    return words


def nodes_of(ranks):
    """The nodes that share the ranks."""
    return lambda wildcards, threads: min(NODES, ranks(wildcards, threads))


def training_cores(most):
    """All cores; in portable numerics not more than there are parts of a step to share."""
    cores = workflow.cores or 8
    return cores if CONFIG.numerics == "native" else min(cores, most)


def training_ranks(wildcards, threads):
    """Cores become ranks in portable numerics, else threads of one rank; or as many as a site says."""
    return site("training_ranks", 1 if CONFIG.numerics == "native" else threads)


def training_threads(wildcards, threads):
    """The threads of a rank: see `training_ranks`.

    A cluster's site says how many (training_threads): a rule's own threads are never more than the
    cores of the machine on which Snakemake runs.
    """
    return site("training_threads", threads) if CONFIG.numerics == "native" else 1
