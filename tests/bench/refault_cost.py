#!/usr/bin/env python3
"""What following refaults costs: each page fault, of a process that is not traced, of a target, of a target on a purged page; and each purged page.

One program faults as fast as it can and reports the CPU time per page of every round. jemtrace comes and goes, with page
faults and without (--no-refaults): A B A B ... in one run of the program, so that neither the layout of its memory nor the
machine's mood explains the difference. The lower quartile of the rounds is taken: interrupts and neighbours only add.
"""

import os
import statistics
import subprocess
import threading
import time

import bench


class Target:
    def __init__(self, arguments, memory):
        self.rounds = {"fault_ns": [], "purge_ns": []}
        program = os.path.join(arguments.workloads, "static_fault_storm")
        self.process = subprocess.Popen([program, f"memory={memory}", f"size={arguments.size}"], stdout=subprocess.PIPE,
                                        text=True, env={**os.environ, "MALLOC_CONF": "oversize_threshold:0,dirty_decay_ms:-1"})
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            key, _, value = line.partition("=")
            if key in self.rounds:
                self.rounds[key].append(int(value))

    def measure(self, seconds):
        begin = {key: len(values) + 1 for key, values in self.rounds.items()}
        time.sleep(seconds)
        return {key: values[begin[key]:] for key, values in self.rounds.items()}


def compare(arguments, name, memory, traced):
    target = Target(arguments, memory)
    other = None if traced else Target(arguments, "own")
    if other:
        other.process.send_signal(19)  # it only has to be there
    selected = target if traced else other
    with_it, without = {"fault_ns": [], "purge_ns": []}, {"fault_ns": [], "purge_ns": []}
    try:
        for _ in range(arguments.rounds):
            for options, sink in (["--no-refaults"], without), ([], with_it):
                tracer = bench.Jemtrace(arguments.jemtrace, [*options, "-i", "1h", "-p", str(selected.process.pid)])
                tracer.wait_for(selected.process.pid)
                time.sleep(0.1)
                for key, values in target.measure(arguments.seconds).items():
                    sink[key] += values
                tracer.stop()
    finally:
        for each in filter(None, (target, other)):
            each.process.kill()
            each.process.wait()
    rows = []
    for key, what in ("fault_ns", "fault"), ("purge_ns", "purged page"):
        if len(with_it[key]) > 1 and len(without[key]) > 1:
            low, high = (statistics.quantiles(values, n=4)[0] for values in (without[key], with_it[key]))
            rows.append([f"{what}, {name}", low, high, high - low])
    return rows


def main():
    arguments = bench.parse_arguments(__doc__.splitlines()[0], rounds=6, seconds=1.0, size=4 << 20)
    rows = compare(arguments, "another process", "own", False)
    rows += compare(arguments, "a target, not purged", "own", True)
    rows += compare(arguments, "a target, purged", "purged", True)
    bench.print_table(["ns per", "--no-refaults", "with", "more"], rows)


if __name__ == "__main__":
    main()
