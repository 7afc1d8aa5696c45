#!/usr/bin/env python3
"""How far the simulator of `jemtrace advise` is from the real jemalloc: four shapes of memory use under six settings, predicted from a run under the first one, and measured.

The bounds: mean resident bytes within 10 %, refaulted pages within 15 % (of the larger of both; fewer than 4096 pages are
no error), and the setting that it would choose is among the best two that were measured. Exit status 1: not met.
"""

import json
import os
import subprocess
import sys
import tempfile

import bench

SHAPES = {  # what `shapes` is asked for
    "steady": {"ms": 15000, "period_ms": 3000},
    "bursty": {"ms": 20000, "period_ms": 5000},
    "producer": {"ms": 15000, "period_ms": 3000},
    "idle": {"ms": 16000},
}
RESIDENT, REFAULTED, FEW_PAGES = 0.10, 0.15, 4096
BYTES_PER_CPU = 4 << 30  # what `balanced` takes a CPU to be worth
CANNOT_TELL = {"memory": 1 << 20, "balanced": 0.001, "latency": 0.001}


def sweep(arguments, shape):
    """The trials of one sweep, from FILE.ndjson in --keep when it is there."""
    kept = os.path.join(arguments.keep, shape + ".ndjson") if arguments.keep else None
    if not (kept and os.path.exists(kept)):
        with tempfile.NamedTemporaryFile(prefix="jemtrace-bench-") as file:
            path = kept or file.name
            command = [arguments.jemtrace, "sweep", "-f", "json", "--series", "-o", path, "--repeat", str(arguments.repeat)]
            command += ["--grid", arguments.grid] if arguments.grid else []
            command += ["--", os.path.join(arguments.workloads, "shapes"), "shape=" + shape]
            command += [f"{key}={value}" for key, value in SHAPES[shape].items()]
            print(f"{shape}: {' '.join(command[command.index('--') + 2:])}", file=sys.stderr)
            subprocess.run(command, check=True, env={**os.environ, "MALLOC_CONF": arguments.conf})
            with open(path) as lines:
                return [json.loads(line) for line in lines]
    with open(kept) as lines:
        return [json.loads(line) for line in lines]


def off(a, b):
    return abs(a - b) / max(a, b, 1)


def setting(trial):
    return "dirty {dirty_decay_ms} muzzy {muzzy_decay_ms}".format(**trial) + (" bg" if trial["background_thread"] else "")


def prices(trial, side, fault_ns):
    """What each goal wants little of. A fault is taken to cost as much in both: it is not measured."""
    it = trial[side]
    ns = it["seconds"] * 1e9
    share = lambda who: it[who + "_purge_cpu"] if side == "predicted" else it[who + "_purge_ns"] / ns
    app = share("app") + it["refaulted_pages"] * fault_ns / ns
    return {"memory": it["mean_resident_bytes"],
            "balanced": app + share("background") + it["mean_resident_bytes"] / BYTES_PER_CPU,
            "latency": app}


def choices(shape, trials, fault_ns):
    """Where what the simulator chooses stands among what was measured."""
    rows, good = [], True
    for goal, cannot_tell in CANNOT_TELL.items():
        chosen = min(trials, key=lambda trial: prices(trial, "predicted", fault_ns)[goal])
        price = prices(chosen, "measured", fault_ns)[goal]
        real = sorted(prices(trial, "measured", fault_ns)[goal] for trial in trials)
        within = price <= real[1] + cannot_tell
        good &= within
        rows.append([shape, goal, setting(chosen), f"{real.index(price) + 1} of {len(real)}",
                     "" if within else "not among the best two"])
    return rows, good


def compare(shape, trials):
    rows, good = [], True
    for trial in trials:
        predicted, measured = trial["predicted"], trial["measured"]
        resident = [side["mean_resident_bytes"] for side in (predicted, measured)]
        refaults = [side["refaulted_pages"] for side in (predicted, measured)]
        few = max(refaults) < FEW_PAGES
        miss = [name for name, error, bound in (("resident", off(*resident), RESIDENT),
                                                ("refaulted", 0 if few else off(*refaults), REFAULTED)) if error > bound]
        good &= not miss
        rows.append([shape, setting(trial), *(f"{value / (1 << 20):.1f}" for value in resident),
                     f"{100 * (resident[0] - resident[1]) / max(resident):+.1f} %", *(str(value) for value in refaults),
                     "few" if few else f"{100 * (refaults[0] - refaults[1]) / max(refaults):+.1f} %", " ".join(miss)])
    return rows, good


def main():
    arguments = bench.parse_arguments(__doc__.splitlines()[0], repeat=1, grid="", conf="narenas:1", keep="",
                                      shapes=",".join(SHAPES))
    table, ranks, good = [], [], True
    for shape in arguments.shapes.split(","):
        lines = sweep(arguments, shape)
        trials = [line for line in lines if line["type"] == "trial"]
        fault_ns = next(line for line in lines if line["type"] == "series")["costs"]["refault_ns_per_page"]
        for into, (rows, within) in ((table, compare(shape, trials)), (ranks, choices(shape, trials, fault_ns))):
            into += rows
            good &= within
    bench.print_table(["", "setting", "MiB said", "MiB was", "off", "refaulted said", "was", "off", "beyond"], table)
    print()
    bench.print_table(["", "goal", "its choice", "measured as", ""], ranks)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
