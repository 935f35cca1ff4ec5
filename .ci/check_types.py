"""Runs pyright, and fails unless it has really read every Python file of the repository.

Pyright given the wrong folders says "0 errors" of no files at all, and the links in agentenv/ invite that.
"""

import json
import subprocess
import sys

command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
try:
    report = json.loads(done.stdout)
except json.JSONDecodeError:
    sys.exit(f"pyright did not run:\n{done.stdout}{done.stderr}")
for item in report["generalDiagnostics"]:
    if item["severity"] == "error":
        line = item["range"]["start"]["line"] + 1 if "range" in item else 0
        sys.stdout.write(f"{item['file']}:{line}: {item['message']} ({item.get('rule', '')})\n")
files = ["git", "ls-files", "*.py", ":!.ci", ":!tests/agents/programs"]  # as [tool.pyright] excludes them
listed = subprocess.run(files, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
errors, read = report["summary"]["errorCount"], report["summary"]["filesAnalyzed"]
sys.stdout.write(f"pyright: {errors} errors in {read} files; the repository has {len(listed)}\n")
sys.exit(errors > 0 or read < len(listed))
