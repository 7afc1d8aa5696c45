#!/usr/bin/env python3
"""What each system call of a process that is not traced costs more while jemtrace watches another one.

getppid() in this process, in turns with jemtrace and without.
"""

import os
import statistics
import subprocess
import time
import timeit

import bench


def nanoseconds(arguments):
    """Of one call, the loop around it included."""
    return [s * 1e9 / arguments.calls
            for s in timeit.repeat("getppid()", globals={"getppid": os.getppid}, number=arguments.calls, repeat=20)]


def compare(arguments, name, select):
    target = subprocess.Popen([os.path.join(arguments.workloads, "static_purge_storm"), "ms=3600000", "rate=10"],
                              stdout=subprocess.DEVNULL)
    alone, watched = [], []
    time.sleep(0.3)
    try:
        for _ in range(arguments.rounds):
            alone += nanoseconds(arguments)
            tracer = bench.Jemtrace(arguments.jemtrace, select(target.pid))
            tracer.wait_for(target.pid)
            watched += nanoseconds(arguments)
            tracer.stop()
    finally:
        target.kill()
        target.wait()
    tenth = lambda values: statistics.quantiles(values, n=10)[0]  # the quiet moments
    return [name, tenth(alone), tenth(watched), tenth(watched) - tenth(alone),
            statistics.median(watched) - statistics.median(alone)]


def main():
    arguments = bench.parse_arguments(__doc__.splitlines()[0], rounds=5, calls=50000)
    bench.print_table(["", "alone ns", "watched ns", "more ns", "of medians"],
                      [compare(arguments, "-p", lambda pid: ["-p", str(pid)]),
                       compare(arguments, "whole host", lambda pid: [])])


if __name__ == "__main__":
    main()
