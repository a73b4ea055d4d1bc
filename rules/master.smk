"""What the process that starts the jobs does first: one master a folder, sound images, no trap."""

from pathlib import Path

from snakemake.logging import logger

from skyproof.containers.check import check_all, check_driver
from skyproof.containers.definition import definition, definitions
from skyproof.workflow.slurm import master


onstart:
    # Once a run, before its first job; not where it is only planned.
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
            if gpu and workflow.local_exec:  # elsewhere each job looks at its own machine's
                check_driver(gpu[0])
    except SkyproofError as error:
        raise WorkflowError(str(error))


onsuccess:
    master.release()


onerror:
    master.release()
