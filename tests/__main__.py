"""All checks and tests: `python -m tests`; what follows goes to pytest (`python -m tests -m slow`)."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKS = (
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
    # Files are spread over two processes, those of the browser in one of them: see conftest.py.
    ["pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", *sys.argv[1:]],
)


def main() -> int:
    """Run every check, also after one has failed; 0 where all passed."""
    failed = []
    # Two processes, and the servers that they start, share the cores: more threads would wait for each other.
    environ = {"OMP_NUM_THREADS": "1"} | os.environ
    for check in CHECKS:
        print(f"\n$ {' '.join(check)}", flush=True)
        if subprocess.run([sys.executable, "-m", *check], cwd=ROOT, env=environ).returncode:
            failed.append(check[0])
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
