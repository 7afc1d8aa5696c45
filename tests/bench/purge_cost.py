#!/usr/bin/env python3
"""What a purge costs the target, with jemtrace attached and without.

One thread purges small extents, 64 in a sweep as decay does it, or one (dirty_decay_ms 0: each free() is a sweep, the
worst case), and reports the time of every batch. jemtrace comes and goes: A B A B … in one run of the target, so that
neither the layout of its memory nor the machine's mood explains the difference. The time without tracing includes
malloc and free: the columns of what is more are what one purge costs more.

A virtual machine can take twice as long for everything while its neighbours work, for nine seconds in ten. The last two
columns are of the quietest fiftieth of all batches with and without tracing, which many short rounds give both of them.
"""

import os
import statistics
import subprocess
import threading
import time

import bench


class Target:
    """The workload purge_storm, whose batches are collected as they come."""

    def __init__(self, path, touch, extents, batch):
        self.batch = batch
        self.nanoseconds = []
        self.process = subprocess.Popen([path, "ms=3600000", f"report_every={batch}", f"touch={touch}", f"extents={extents}"],
                                        stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            key, _, value = line.partition("=")
            if key == "batch_ns":
                self.nanoseconds.append(int(value) / self.batch)

    def measure(self, seconds):
        """ns per purge of the batches that begin and end in these seconds."""
        begin = len(self.nanoseconds) + 1
        time.sleep(seconds)
        return self.nanoseconds[begin:]


def compare(arguments, workload, touch, extents):
    target = Target(os.path.join(arguments.workloads, workload), touch, extents, arguments.batch)
    alone, watched, name = [], [], "?"
    time.sleep(0.5)
    try:
        for _ in range(arguments.rounds):
            alone += target.measure(arguments.seconds)
            tracer = bench.Jemtrace(arguments.jemtrace, ["-p", str(target.process.pid)])
            tracer.wait_for(target.process.pid)
            time.sleep(0.1)
            watched += target.measure(arguments.seconds)
            name = bench.tier(tracer, target.process.pid)
            tracer.stop()
            time.sleep(0.1)
    finally:
        target.process.kill()
        target.process.wait()
    without, with_it = statistics.median(alone), statistics.median(watched)
    quietest = lambda values: statistics.quantiles(values, n=50)[0]
    return [workload, "touched" if touch else "untouched", extents, name, without, with_it, with_it / without,
            with_it - without, quietest(alone), quietest(watched) - quietest(alone)]


def main():
    arguments = bench.parse_arguments(__doc__.splitlines()[0], rounds=16, seconds=0.3, batch=256)
    rows = [compare(arguments, workload, touch, extents) for workload in ("static_purge_storm", "purge_storm")
            for touch in (0, 1) for extents in (64, 1)]
    bench.print_table(["target", "its pages", "extents per sweep", "tier", "alone ns", "traced ns", "ratio", "more ns",
                       "quietest alone", "more"], rows)


if __name__ == "__main__":
    main()
