"""The checks of `doctor` on a SLURM cluster: controller, profile, partitions and nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.doctor import node_tests
from skyproof.workflow.doctor.findings import Finding, fail, ok
from skyproof.workflow.plan.dryrun import DryRun
from skyproof.workflow.slurm import client, master, sbatch_args
from skyproof.workflow.slurm.client import NodeGroup

_UNUSABLE = {"down", "drained", "draining", "fail", "failing", "maint", "unknown", "reboot"}


def examine(run: DryRun, patience: float) -> Iterator[Finding]:
    """Yield the findings on the cluster."""
    try:
        config = client.settings()
        there = client.nodes()
    except EnvironmentProblem as error:
        yield fail("slurm", str(error), "start on a login node, load the site's module of SLURM")
        return
    yield ok("slurm", f"{config.get('SLURM_VERSION', 'SLURM')} of {config.get('ClusterName', '?')}")
    yield status(_settings(run), config)
    try:
        declared = sbatch_args.partitions(run)
    except Exception as error:  # Snakemake's own, or any from its reader of the file
        yield fail("partitions", " ".join(str(error).split()), f"correct {run.partitions}")
        return
    judged = [partition(found, there, str(run.partitions)) for found in declared]
    yield from judged
    rejected = list(rejected_jobs(run, declared))
    yield from rejected or [ok("jobs", f"SLURM would take each of {len(_kinds(run))} kinds of job")]
    broken = {line.what.split()[-1] for line in judged if line.verdict == "fail"}
    yield from node_tests.examine(run, declared, there, broken, patience)


def _settings(run: DryRun) -> Any:
    """Return the executor's settings: those of the profile, else the defaults."""
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    return ExecutorPluginRegistry().get_plugin("slurm").get_settings(run.arguments)


def status(settings: Any, config: Mapping[str, str]) -> Finding:
    """Check that the states of jobs are queried in a way that works on this cluster."""
    if (wrong := master.wrong_setting(settings)) is not None:
        problem, remedy = wrong
        return fail("status", problem, f"{remedy} (in the profile)")
    kept = config.get("AccountingStorageType", "") not in ("", "accounting_storage/none", "(null)")
    accounts = "accounts are kept" if kept else "no accounts are kept"
    return ok("status", f"{accounts}; {settings.status_command} shows ended jobs long enough")


def partition(declared: Any, there: Sequence[NodeGroup], file: str) -> Finding:
    """Check that a partition of partitions.yaml exists and is as large as stated there."""
    what = f"partition {declared.name}"
    nodes = [found for found in there if found.partition == declared.name]
    if not nodes:
        names = ", ".join(sorted({found.partition for found in there}))
        return fail(what, f"is not on this cluster, which has {names}", f"correct {file}")
    if not any(found.is_up for found in nodes):
        return fail(what, "is closed", f"take it out of {file}, or wait")
    if all(found.state in _UNUSABLE for found in nodes):
        states = ", ".join(sorted({found.state for found in nodes}))
        return fail(what, f"all its nodes are {states}", f"wait, or take it out of {file}")
    wrong = list(_beyond(declared.limits, nodes))
    if wrong:
        return fail(what, f"is smaller than in {file}: {'; '.join(wrong)}", "correct the file")
    size = f"{sum(n.count for n in nodes)} nodes, {max(n.cores for n in nodes)} cores"
    memory = f"{max(n.memory_mb for n in nodes) / 1e3:.0f} GB"
    features = ",".join(sorted(set().union(*(n.features for n in nodes)))) or "no features"
    return ok(what, f"{size}, {memory}, {features}")


def _beyond(limits: Any, nodes: Sequence[NodeGroup]) -> Iterator[str]:
    """Yield the limits of partitions.yaml that the cluster does not have."""
    features = set().union(*(found.features for found in nodes))
    gpus: dict[str, int] = {}
    for found in nodes:
        for model, count in found.gpus.items():
            gpus[model] = max(count, gpus.get(model, 0))
    real = {
        "max_runtime": max(found.minutes for found in nodes),
        "max_mem_mb": max(found.memory_mb for found in nodes),
        "max_threads": max(found.cores for found in nodes),
        "max_nodes": sum(found.count for found in nodes),
        "max_gpu": max(gpus.values(), default=0),
    }
    for name, most in real.items():
        said = getattr(limits, name)
        if said != float("inf") and said > most:
            yield f"{name} {said:g}, there are {most:g}"
    for name in limits.available_constraints or ():
        if name not in features:
            yield f"feature {name}, there are {', '.join(sorted(features)) or 'none'}"
    for model in limits.available_gpu_models or ():
        if model not in gpus:
            yield f"GPU model {model}, there are {', '.join(sorted(gpus)) or 'none'}"


def rejected_jobs(run: DryRun, declared: Sequence[Any]) -> Iterator[Finding]:
    """Yield the kinds of job that SLURM would reject, with the setting to correct."""
    kinds = _kinds(run)
    rules: dict[tuple[str, str], list[str]] = {}
    for rule, job in kinds.items():
        if (rejection := _rejection(job, declared)) is not None:
            rules.setdefault(rejection, []).append(rule)
    for (found, remedy), names in rules.items():
        yield fail(f"jobs of {_named(names, len(kinds))}", found, remedy)


def _named(rules: Sequence[str], of: int) -> str:
    """Return a short text for some of `of` rules."""
    if len(rules) == 1:
        return rules[0]
    return "all rules" if len(rules) == of else f"{rules[0]} and {len(rules) - 1} more"


def _rejection(job: Any, declared: Sequence[Any]) -> tuple[str, str] | None:
    """Return why SLURM would reject a job, and the remedy; None if it would accept it."""
    if declared and sbatch_args.best(declared, job) is None:
        found = (
            "fit no partition of partitions.yaml (python -m skyproof plan shows what they ask for)"
        )
        return found, "smaller blocks, or set-resources"
    try:
        client.would_accept(sbatch_args.words(job, declared))
    except (EnvironmentProblem, ValueError) as error:
        return str(error), remedy_for(str(error))
    return None


# Part of sbatch's error message, and the setting to correct.
_WORDS = {
    "account": "correct slurm_account in the profile (sacctmgr show assoc user=$USER)",
    "partition": "correct partitions.yaml, or slurm_partition in the profile",
    "qos": "correct qos in the profile",
    "feature": "correct constraint in the profile (sinfo -o %f)",
    "node configuration": "correct constraint, mem_mb, gpu or gpu_model (sinfo -o '%m %f %G')",
    "generic resource": "correct gpu and gpu_model in the profile (sinfo -o %G)",
    "time limit": "correct max_runtime in partitions.yaml",
}


def remedy_for(message: str) -> str:
    """Return the remedy for an error message of sbatch."""
    said = message.lower()
    return next((remedy for word, remedy in _WORDS.items() if word in said), "see man sbatch")


def _kinds(run: DryRun) -> dict[str, Any]:
    """Return the job of each rule with the most memory, of the rules that run on the cluster."""
    found: dict[str, Any] = {}
    for job in run.jobs:
        sent = job.benchmark or job.outputs
        if sent and (job.rule not in found or job.memory_mb > found[job.rule].memory_mb):
            found[job.rule] = job
    return found
