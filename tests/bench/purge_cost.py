#!/usr/bin/env python3
"""What a purge costs the target, with jemtrace attached and without.

One thread purges small extents, 64 in a sweep as decay does it, or one (dirty_decay_ms 0: each free() is a sweep, the
worst case), and reports the time of every batch. jemtrace comes and goes: A B A B … in one run of the target, so that
neither the layout of its memory nor the machine's mood explains the difference. The time without tracing includes
malloc and free: the columns of what is more are what one purge costs more.

A virtual machine can take twice as long for everything while its neighbours work, for nine seconds in ten. After each
batch the target times a piece of work that is always the same, and that no tracer sees. The last columns are the medians
of the batches at whose end it took at most 5 % more than at its quickest: the machine was quiet then, by a measure that
tracing has no part in. The target has a CPU of its own: what jemtrace's user space takes is not a purge's.
"""

import os
import statistics
import subprocess
import threading
import time

import bench

QUIET = 1.05  # of what the reference takes at its quickest
CPUS = sorted(os.sched_getaffinity(0))
TARGET_CPU = CPUS[-1]


class Target:
    """The workload purge_storm, whose batches are collected as they come."""

    def __init__(self, path, touch, extents, batch):
        self.batch = batch
        self.batches = []  # ns per purge, ns of the reference
        command = [path, "ms=3600000", f"report_every={batch}", f"touch={touch}", f"extents={extents}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: os.sched_setaffinity(0, {TARGET_CPU}))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            key, _, value = line.partition("=")
            if key == "batch_ns":
                nanoseconds, reference = map(int, value.split())
                self.batches.append((nanoseconds / self.batch, reference))

    def measure(self, seconds):
        """The batches that begin and end in these seconds."""
        begin = len(self.batches) + 1
        time.sleep(seconds)
        return self.batches[begin:]


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
    return (workload, "touched" if touch else "untouched", extents, name), alone, watched


def median(batches):
    return statistics.median(nanoseconds for nanoseconds, _ in batches)


def row_of(what, alone, watched, quickest):
    quiet = lambda batches: [batch for batch in batches if batch[1] <= quickest * QUIET]
    without, with_it, quiet_alone, quiet_watched = median(alone), median(watched), quiet(alone), quiet(watched)
    row = [*what, without, with_it, with_it / without, with_it - without]
    if not quiet_alone or not quiet_watched:
        return row + ["-", "-", 0]
    return row + [median(quiet_alone), median(quiet_watched) - median(quiet_alone), len(quiet_watched)]


def main():
    arguments = bench.parse_arguments(__doc__.splitlines()[0], rounds=16, seconds=0.3, batch=256)
    os.sched_setaffinity(0, CPUS[:-1] or CPUS)  # and with it, those that are started from here
    results = [compare(arguments, workload, touch, extents) for workload in ("static_purge_storm", "purge_storm")
               for touch in (0, 1) for extents in (64, 1)]
    references = [reference for _, alone, watched in results for _, reference in alone + watched]
    quickest = statistics.quantiles(references, n=100)[0]
    bench.print_table(["target", "its pages", "extents per sweep", "tier", "alone ns", "traced ns", "ratio", "more ns",
                       "quiet: alone", "more", "batches"], [row_of(*result, quickest) for result in results])


if __name__ == "__main__":
    main()
