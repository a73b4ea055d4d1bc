"""`snakemake`, but it asks SLURM for the states of jobs every second.

The executor itself waits 10 s longer each time that it saw no job succeed: a test of three failures
would spend minutes there.
"""

from __future__ import annotations

import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def _a_second(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1)


if __name__ == "__main__":
    RemoteExecutor.sleep = _a_second
    main()
