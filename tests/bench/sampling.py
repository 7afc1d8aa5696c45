#!/usr/bin/env python3
"""What reading a large process costs it, and whether the budget holds.

A process of many gigabytes and a thousand mappings maps and unmaps all the time: reading smaps makes it wait, as that
takes its mmap lock. jemtrace comes and goes in one run of the target. Both times it is traced; what differs is the
reading. Printed are the latencies, the share of the time that jemtrace read (budget: 0.1 %), and how often that was
smaps_rollup: of a large process not before its share is saved up (--mib 2048 --mappings 200 --rounds 1 --watched 115).
"""

import os
import statistics
import subprocess
import threading
import time

import bench


class Target:
    """The workload mapper, whose rounds are collected as they come."""

    def __init__(self, path, mappings, mib):
        self.rounds = []
        self.process = subprocess.Popen(
            [path, f"mappings={mappings}", f"mib={mib}", "round_ms=500", "ms=3600000"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "MALLOC_CONF": "dirty_decay_ms:100,muzzy_decay_ms:1000"})
        threading.Thread(target=self._read, daemon=True).start()
        while not self.rounds:
            time.sleep(0.1)

    def _read(self):
        values = {}
        for line in self.process.stdout:
            key, _, value = line.strip().partition("=")
            values[key] = value
            if key == "max_ns":
                self.rounds.append({name: int(values[name]) for name in ("p50_ns", "p99_ns", "max_ns")})

    def measure(self, seconds):
        begin = len(self.rounds) + 1
        time.sleep(seconds)
        return self.rounds[begin:]


def count_rollups(intervals):
    """Each makes LazyFree known, or younger than it was."""
    ages = [line["age_ms"]["lazyfree_bytes"] for line in intervals]
    return sum(age is not None and (before is None or age < before) for before, age in zip([None] + ages, ages))


def main():
    arguments = bench.parse_arguments(__doc__.splitlines()[0], rounds=4, seconds=8.0, watched=0.0, mappings=1000, mib=10240)
    target = Target(os.path.join(arguments.workloads, "mapper"), arguments.mappings, arguments.mib)
    alone, watched, sampling_ns, window_ns, rollups = [], [], 0, 0, 0
    try:
        for _ in range(arguments.rounds):
            tracer = bench.Jemtrace(arguments.jemtrace, ["-i", "1h", "-p", str(target.process.pid)])
            tracer.wait_for(target.process.pid)
            alone += target.measure(arguments.seconds)
            tracer.stop()
            # Traced both times: what differs is the reading, which happens at the end of each interval.
            tracer = bench.Jemtrace(arguments.jemtrace, ["-i", "100ms", "-p", str(target.process.pid)])
            tracer.wait_for(target.process.pid)
            watched += target.measure(arguments.watched or arguments.seconds)
            tracer.stop()
            rollups += count_rollups(tracer.of_type("interval"))
            summary = tracer.of_type("summary")[0]
            sampling_ns += summary["cost"]["sampling_ns"]
            window_ns += summary["window_ns"]
    finally:
        target.process.kill()
        target.process.wait()
    rows = []
    for name in ("p50_ns", "p99_ns", "max_ns"):
        take = max if name == "max_ns" else statistics.median
        without, with_it = take(r[name] for r in alone), take(r[name] for r in watched)
        rows.append([name, without, with_it, with_it / without])
    bench.print_table(["mmap and munmap", "not read", "read", "ratio"], rows)
    print(f"reading took {100 * sampling_ns / window_ns:.3f} % of the time ({sampling_ns / 1e6:.1f} ms of "
          f"{window_ns / 1e9:.0f} s); smaps_rollup was read {rollups} times")


if __name__ == "__main__":
    main()
