#!/usr/bin/env python3
"""How long jemtrace takes from its start until it traces, and from SIGINT until it has ended."""

import os
import shutil
import statistics
import subprocess
import tempfile
import time

import bench


def measure(arguments, name, workload, select):
    target = subprocess.Popen([os.path.join(arguments.workloads, workload), "ms=3600000", "rate=1000"],
                              stdout=subprocess.DEVNULL)
    starts, stops, parts = [], [], {}
    time.sleep(0.3)
    try:
        for _ in range(arguments.rounds):
            tracer = bench.Jemtrace(arguments.jemtrace, select(target.pid))
            starts.append(tracer.wait_for(target.pid) * 1000)
            time.sleep(0.2)
            stops.append(tracer.stop() * 1000)
            for part, ms in tracer.timings_ms().items():
                parts.setdefault(part, []).append(ms)
    finally:
        target.kill()
        target.wait()
    detail = ", ".join(f"{part} {statistics.median(ms):.1f}" for part, ms in parts.items())
    return [name, statistics.median(starts), max(starts), statistics.median(stops), max(stops), detail]


def hundred_images(arguments):
    """As many programs with a jemalloc of their own, so that as many images are probed."""
    with tempfile.TemporaryDirectory(prefix="jemtrace-bench-") as directory:
        targets = []
        try:
            for i in range(arguments.images):
                path = shutil.copy(os.path.join(arguments.workloads, "static_purge_storm"), f"{directory}/storm{i}")
                targets.append(subprocess.Popen([path, "ms=3600000", "rate=10"], stdout=subprocess.DEVNULL))
            return measure(arguments, f"whole host, {arguments.images} images", "static_purge_storm", lambda pid: [])
        finally:
            for target in targets:
                target.kill()
                target.wait()


def main():
    arguments = bench.parse_arguments(__doc__, rounds=10, images=100)
    by_pid = lambda pid: ["-p", str(pid)]
    rows = [
        measure(arguments, "-p, static, symbols", "static_purge_storm", by_pid),
        measure(arguments, "-p, shared, stripped", "purge_storm", by_pid),
        measure(arguments, "whole host", "static_purge_storm", lambda pid: []),
        hundred_images(arguments),
    ]
    bench.print_table(["", "start ms", "max", "stop ms", "max", "of it (-v), ms"], rows)


if __name__ == "__main__":
    main()
