"""Leaves processes behind in sessions of their own, asks the model once, and hangs or ends as it is told."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

folder = Path(sys.argv[1])
code = "import os, sys, time, pathlib; pathlib.Path(sys.argv[1], str(os.getpid())).write_text(''); time.sleep(600)"
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", code, str(folder)], start_new_session=True)
(folder / str(os.getpid())).write_text("")
while len(list(folder.iterdir())) < 3:
    time.sleep(0.01)
headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
ask = json.dumps({"messages": [{"role": "user", "content": sys.stdin.read()}]}).encode()
urllib.request.urlopen(
    urllib.request.Request(f"{os.environ['OPENAI_BASE_URL']}/chat/completions", ask, headers)
).close()
if "hang" in sys.argv:
    time.sleep(600)
sys.exit(int(sys.argv[2]))
