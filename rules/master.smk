"""What the process that starts the jobs does first: one master a folder, sound images, no trap."""

from pathlib import Path

from snakemake.logging import logger

from skyproof.images.check import check_all
from skyproof.images.definition import definitions
from skyproof.workflow import master


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
            check_all(definitions())
    except SkyproofError as error:
        raise WorkflowError(str(error))


onsuccess:
    master.release()


onerror:
    master.release()
