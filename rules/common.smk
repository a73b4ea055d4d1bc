"""Helpers of all systems - the checked configuration, and the params and resources of rules."""

import os
import sys
from functools import cache
from shlex import quote

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

# The package is imported from the checkout, here and in every job, environment or image.
SCRIPTS = f"{workflow.basedir}/scripts"
sys.path.insert(0, SCRIPTS)

from skyproof.core.errors import SkyproofError
from skyproof.containers.definition import definition
from skyproof.workflow.code import code_digest
from skyproof.workflow.config import load
from skyproof.workflow.plan.systems import plan_of
from skyproof.workflow.rules import files_of, job_options_of, options_of

IN_IMAGES = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method

try:
    CONFIG = load(config)
    PLANS = {system: plan_of(system, getattr(CONFIG, system)) for system in CONFIG.systems}
except SkyproofError as error:
    raise WorkflowError(str(error))


def site(word, otherwise):
    """A value that the profile of a site sets for all rules (default-resources), else `otherwise`."""
    words = workflow.resource_settings.default_resources or {}
    return words[word].raw if word in words else otherwise


# The start of each job's shell. It replaces Snakemake's own prefix, so strict mode is set again. A site
# may add variables, which libraries read when they start.
VARIABLES = site("environment", "")
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={quote(SCRIPTS)}"
    f"{' ' + VARIABLES if VARIABLES else ''}; "
)
# Command that starts MPI ranks, and their number of nodes; on one machine, mpiexec.
LAUNCHER = site("launcher", "mpiexec")
NODES = site("mpi_nodes", 1)
# The SLURM executor reads a relative path from the folder of the run, not of the checkout.
if site("partitions", ""):
    os.environ.setdefault(
        "SNAKEMAKE_SLURM_PARTITIONS", os.path.join(workflow.basedir, site("partitions", ""))
    )


# --- params -----------------------------------------------------------------------------------


def stage(name, image, **inputs):
    """The parameters of the rule of a stage ('system.stage') in the environment `image`.

    A change of `image`, `options`, `code` or `inputs` runs the rule again. `inputs` are inputs of the
    stage that are not files of the rule (text), or that are too many for a line (see `braces`).
    """
    plan = PLANS[name.partition(".")[0]]
    options = options_of(CONFIG, name)

    def files(wildcards, input, output):
        words = {k: v(wildcards) if callable(v) else quote(v) for k, v in inputs.items()}
        return files_of(input, output, words)

    def all_options(wildcards):
        given = dict(wildcards.items())
        values = plan.job(given) if hasattr(plan, "job") else {}
        return f"{options} {job_options_of(name, values, given)}".strip()

    return {
        **inside(image),
        "files": files,
        "options": all_options,
        "code": code_digest(name),
        **inputs,
    }


def inside(environment):
    """The parameters of a rule that runs in an image if the workflow uses images.

    The name of an image depends on its definition and locks, so a change runs the rule again.
    `start` is the beginning of the shell line: the launcher of MPI ranks, which runs outside the
    image, and the command that enters the image on each rank. (`container:` would run the launcher
    inside.)
    """

    def start(wildcards, resources):
        words = [resources.get("mpi", "")]
        if IN_IMAGES:
            device = resources.get("device", "cpu")
            # Snakemake's arguments, and the checkout, which may be outside the folder of the run.
            words += ["apptainer exec", "--nv" if device == "cuda" else "", '--home "$PWD"']
            words += [f"--bind {quote(str(workflow.basedir))}"]
            words += [workflow.deployment_settings.apptainer_args]
            words += [str(definition(environment, device=device).image)]
        return " ".join(word for word in words if word)

    return {"image": str(definition(environment).image) if IN_IMAGES else None, "start": start}


def blocks(items, block_size):
    """Five-digit names of the blocks of `items` items."""
    return [f"{number:05d}" for number in range(-(-items // block_size))]


def braces(pattern, names):
    """Return the files of all blocks as one pattern in braces, which the shell expands.

    A line with thousands of files is longer than the kernel allows. (A function is returned, because
    Snakemake would read the braces as a wildcard.)
    """
    word = f"{{{names[0]}..{names[-1]}}}"
    return lambda wildcards: pattern.format(**{**dict(wildcards.items()), "block": word})


# --- resources --------------------------------------------------------------------------------

# Memory [MB] of Snakemake itself in a batch job: two nested processes.
SNAKEMAKE_MB = 300


def doubling(amount):
    """A resource that doubles with each further attempt."""
    return lambda wildcards, attempt: int(amount * 2 ** (attempt - 1))


def serial(name):
    """Resources of a stage ('system.stage') in one process, from its cost; doubled on retry."""
    cost = cost_of(name)
    return {
        "mem_mb": lambda wildcards, attempt: int(cost(wildcards).memory_mb * 2 ** (attempt - 1)),
        "runtime": lambda wildcards, attempt: int(
            cost(wildcards).limit_minutes * 2 ** (attempt - 1)
        ),
    }


def mpi(name, most=None):
    """Resources of a stage in MPI ranks of one thread.

    The number of ranks is that of the site, else the threads of the rule; at most `most`, if given.
    """
    cost = cost_of(name)

    def ranks(wildcards, threads):
        number = site("mpi_ranks", threads)
        return number if most is None else min(number, most)

    def memory(wildcards, threads, attempt):
        on_a_node = -(-ranks(wildcards, threads) // NODES)
        return int(SNAKEMAKE_MB + cost(wildcards).memory_mb * on_a_node * 2 ** (attempt - 1))

    return {**serial(name), **world(ranks), "cpus_per_task": 1, "mem_mb": memory}


def training(name):
    """Resources of a training: several ranks in portable numerics, else one rank with threads.

    A site may set the number of ranks.
    """

    def ranks(wildcards, threads):
        return site("training_ranks", 1 if CONFIG.numerics == "native" else threads)

    return {**serial(name), **world(ranks), "cpus_per_task": training_threads}


def world(ranks):
    """The number of ranks and nodes, and the launcher, empty for one rank."""

    def launcher(wildcards, threads):
        number = ranks(wildcards, threads)
        return f"{LAUNCHER} -n {number}" if number > 1 else ""

    def nodes(wildcards, threads):
        return min(NODES, ranks(wildcards, threads))

    return {"mpi": launcher, "tasks": ranks, "nodes": nodes}


def cost_of(name):
    """The cost of a job of a stage (skyproof.core.cost) as a function of the wildcards."""
    system, _, own = name.partition(".")
    known = cache(lambda wildcards: PLANS[system].cost(own, dict(wildcards)))
    return lambda wildcards: known(tuple(wildcards.items()))


def training_cores(most):
    """All cores; in portable numerics at most `most`, the number of parts of a step."""
    cores = workflow.cores or 8
    return cores if CONFIG.numerics == "native" else min(cores, most)


def training_threads(wildcards, threads):
    """The threads of a rank of a training: one in portable numerics.

    The site of a cluster sets the number (training_threads), because Snakemake limits the threads of
    a rule to the cores of the machine on which it runs.
    """
    return site("training_threads", threads) if CONFIG.numerics == "native" else 1


def on_gpus():
    """Whether jobs of a rule run on GPUs (set-resources, in a profile or on the command line)."""
    given = workflow.resource_settings.overwrite_resources.values()
    return any(words["device"].raw == "cuda" for words in given if "device" in words)


# --- output -----------------------------------------------------------------------------------


def figure(file, result, caption="", subcategory=None):
    """A product ('system/[{region}/]stage/name') that the report shows under the label `result`.

    Its caption is report/<system>_<name>.rst, or report/<system>_<caption>.rst.
    """
    system, *folders, last = file.split("/")
    return report(
        f"results/{file}",
        caption=f"report/{system}_{caption or last.split('.')[0]}.rst",
        # The docstring of a system begins with its title.
        category=type(getattr(CONFIG, system)).__doc__.partition(":")[0],
        subcategory=subcategory or (folders[0] if folders[0].startswith("{") else None),
        labels={"result": result},
    )
