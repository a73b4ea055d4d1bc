"""What the process that starts the jobs does first: one master a folder, no orphan, no trap."""

from pathlib import Path

from snakemake.logging import logger

from skyproof.workflow import master


onstart:
    try:
        master.take_charge(
            Path.cwd(),
            workflow.executor_plugin.name,
            workflow.executor_settings,
            logger.warning,
        )
    except SkyproofError as error:
        raise WorkflowError(str(error))


onsuccess:
    master.release()


onerror:
    master.release()
