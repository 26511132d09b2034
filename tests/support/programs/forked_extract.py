"""Run tools/extract.py with each of several lists of options, in forks of a process that has
imported all it needs: seconds less for each.

Reads a JSON list of the lists on stdin; writes one of [exit status, stderr] to stdout.
"""

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

TOOLS = Path(__file__).parents[3] / "tools"
sys.path.insert(0, str(TOOLS))

import extract  # noqa: E402,F401

import vmb_d2.extractor  # noqa: E402,F401


def run(options):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            status = 70
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.argv = ["extract.py", *options]
                runpy.run_path(str(TOOLS / "extract.py"), run_name="__main__")
            except SystemExit as ended:
                status = ended.code
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        err.seek(0)
        return [os.waitstatus_to_exitcode(status), err.read()]


json.dump([run(options) for options in json.load(sys.stdin)], sys.stdout)
