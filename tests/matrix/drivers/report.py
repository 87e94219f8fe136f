"""What the drivers in Python share: the task, and a line of JSON for each thing that the client does."""

import json
import sys

TASK = json.loads(sys.argv[1])
URL = TASK["url"]


def report(**line):
    print(json.dumps(line), flush=True)


def drive(run):
    try:
        run()
        report(end=True)
    except Exception as error:  # every kind of failure is what the harness asks for
        response = getattr(error, "response", None)
        status = getattr(error, "status_code", getattr(response, "status_code", None))
        report(end=True, error=f"{type(error).__name__}: {error}", status=status)
