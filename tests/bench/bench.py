"""What the benchmarks share: where the programs are, how jemtrace is started and stopped, how a table is printed."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time


def parse_arguments(description, as_root=True, **defaults):
    """--jemtrace and --workloads, and an option with a default for each of `defaults`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--jemtrace", default=os.environ.get("JEMTRACE", "build/userspace/jemtrace"))
    parser.add_argument("--workloads", default=os.environ.get("JEMTRACE_WORKLOADS", "build/tests/workloads"))
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), default=value, type=type(value))
    arguments = parser.parse_args()
    if as_root and os.geteuid() != 0:
        sys.exit("benchmarks trace: run them as root")
    return arguments


class Jemtrace:
    """A running `jemtrace -v -f json -o FILE ARGUMENTS`."""

    def __init__(self, path, arguments, command=(), environment=None):
        self.ndjson = tempfile.NamedTemporaryFile(mode="r", prefix="jemtrace-bench-")
        self.errors = tempfile.NamedTemporaryFile(mode="r+", prefix="jemtrace-bench-")
        full = [path, "-v", "-f", "json", "-o", self.ndjson.name, *arguments]
        if command:
            full += ["--", *command]
        self.started = time.monotonic()
        self.process = subprocess.Popen(full, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        env={**os.environ, **(environment or {})})

    def stderr(self):
        with open(self.errors.name) as file:
            return file.read()

    def lines(self):
        with open(self.ndjson.name) as file:
            return [json.loads(line) for line in file if line.endswith("\n")]

    def of_type(self, kind, pid=None):
        return [line for line in self.lines() if line["type"] == kind and pid in (None, line["pid"])]

    def wait_for(self, pid, limit_s=20):
        """Until all is attached and `pid` is a target. Returns the seconds since the start."""
        while not ("attach:" in self.stderr() and self.of_type("target", pid)):
            if self.process.poll() is not None or time.monotonic() - self.started > limit_s:
                sys.exit(f"jemtrace did not attach to {pid}:\n{self.stderr()}")
            time.sleep(0.001)
        return time.monotonic() - self.started

    def stop(self):
        """SIGINT. Returns the seconds until it has ended."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait()  # with a limit it would look only every 50 ms
        if status != 0:
            sys.exit(f"jemtrace ended with status {status}:\n{self.stderr()}")
        return time.monotonic() - begin

    def timings_ms(self):
        """The `what: N ms` lines of -v."""
        found = {}
        for line in self.stderr().splitlines():
            words = line.split()
            if len(words) == 3 and words[0].endswith(":") and words[2] == "ms":
                found[words[0][:-1]] = float(words[1])
        return found


def tier(jemtrace, pid):
    return jemtrace.of_type("target", pid)[0]["images"][0]["tier"]


def print_table(head, rows):
    cells = [head] + [[cell if isinstance(cell, str) else f"{cell:.3g}" if cell < 10 else f"{cell:.0f}" for cell in row]
                      for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print("  ".join([row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]))
