# SPDX-License-Identifier: Apache-2.0
"""The fixtures of the process tests, for the stress tests too."""

import importlib.util
import os
import pathlib

_path = pathlib.Path(__file__).resolve().parent.parent / "process" / "conftest.py"
_spec = importlib.util.spec_from_file_location("process_conftest", _path)
_process = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_process)

# Long runs by hand take as long as they are told to, and no cell of the matrix more than that.
_process.TEST_SECONDS += int(os.environ.get("STRESS_SECONDS", "0")) * 2 + int(os.environ.get("THAW_KILLS", "0"))

lab = _process.lab
huge = _process.huge
memory_cache = _process.memory_cache
pytest_runtest_makereport = _process.pytest_runtest_makereport
