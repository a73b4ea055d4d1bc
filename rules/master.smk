"""Checks before the first job - one master per folder, intact images, valid settings."""

from pathlib import Path

from snakemake.logging import logger

from skyproof.containers.check import check_all, check_driver
from skyproof.containers.definition import definition, definitions
from skyproof.workflow.slurm import master


onstart:
    # Once per run, before its first job; not in a dry run.
    try:
        master.take_charge(
            Path.cwd(),
            workflow.executor_plugin.name,
            workflow.executor_settings,
            logger.warning,
        )
        if IN_IMAGES:
            gpu = [definition("train", device="cuda")] if on_gpus() else []
            check_all([*definitions(), *gpu])
            # On a cluster each job checks the driver of its machine.
            if gpu and workflow.local_exec:
                check_driver(gpu[0])
    except SkyproofError as error:
        raise WorkflowError(str(error))


onsuccess:
    master.release()


onerror:
    master.release()
