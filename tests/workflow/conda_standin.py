"""A replacement of the program conda, based on py-rattler, for a channel made by a test.

Only what Snakemake and scripts/lock_conda call is there. A channel's name is looked up in the
folder that SKYPROOF_TEST_CHANNELS names, so the environment files are used as they are.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import rattler
import yaml

HERE = Path(sys.argv[1])  # the prefix of conda, with bin/activate


def main(words: list[str]) -> None:
    if words == ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(HERE), "platform": "linux-64"}))
    elif words == ["--version"]:
        print("conda 25.1.0")
    elif words[:1] == ["config"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif words[:2] == ["env", "create"]:
        file, prefix = (words[words.index(name) + 1] for name in ("--file", "--prefix"))
        asyncio.run(create(yaml.safe_load(Path(file).read_text()), Path(prefix)))
    elif words[:3] == ["list", "--explicit", "--md5"]:
        print("@EXPLICIT")
        for path in sorted(Path(words[-1], "conda-meta").glob("*.json")):
            about = json.loads(path.read_text())
            print(f"{about['url']}#{about['md5']}")
    elif words[:1] != ["clean"]:
        sys.exit(f"conda {' '.join(words)}: not known to the stand-in")


async def create(content: dict, prefix: Path) -> None:
    root = Path(os.environ["SKYPROOF_TEST_CHANNELS"])
    channels = [(root / name).as_uri() for name in content["channels"] if name != "nodefaults"]
    specs = [rattler.MatchSpec(line, strict=True) for line in content["dependencies"]]
    records = await rattler.solve(channels, specs, platforms=["linux-64", "noarch"])
    await rattler.install(records, prefix, cache_dir=root / "cache", show_progress=False)


try:
    main(sys.argv[2:])
    code = 0
except Exception as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    code = 1
sys.stdout.flush()
os._exit(code)  # its threads may fail when the interpreter ends in the usual way
