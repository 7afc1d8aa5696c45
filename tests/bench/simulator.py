#!/usr/bin/env python3
"""How far the simulator of `jemtrace advise` is from the real jemalloc.

Four shapes of memory use under six settings, predicted from a run under the first one and from one under a decay time
that is none of theirs, and measured: the mean of --repeat runs, in turns.

The bounds: mean resident bytes within 10 %, refaulted pages within 15 % (of the larger of both; fewer than 4096 pages
are no error), and the setting that it would choose is among the best two that were measured. What is beyond them is
named; with --check 1 the exit status is 1 then.
--keep DIR keeps what was recorded and measured; with it there, only the predictions are made anew.
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


def sweep(arguments, shape, path):
    command = [arguments.jemtrace, "sweep", "-f", "json", "--series", "-o", path, "--repeat", str(arguments.repeat)]
    command += ["--grid", arguments.grid] if arguments.grid else []
    command += ["--", os.path.join(arguments.workloads, "shapes"), "shape=" + shape]
    command += [f"{key}={value}" for key, value in SHAPES[shape].items()]
    print(" ".join(command[command.index("--") + 1:]), file=sys.stderr)
    subprocess.run(command, check=True, env={**os.environ, "MALLOC_CONF": arguments.conf})


def key(trial):
    return trial["dirty_decay_ms"], trial["muzzy_decay_ms"], trial["background_thread"]


def predict_again(arguments, path, trials):
    """By this jemtrace, from what was recorded."""
    candidates = {}
    for muzzy in {trial["muzzy_decay_ms"] for trial in trials}:  # a grid with several leaves out what makes no difference
        dirty = ",".join({str(trial["dirty_decay_ms"]) for trial in trials})
        output = subprocess.run([arguments.jemtrace, "advise", path, "-f", "json", "--grid", f"dirty={dirty} muzzy={muzzy} bg=off,on"],
                                check=True, capture_output=True, text=True).stdout
        advice = next(line for line in map(json.loads, output.splitlines()) if line["type"] == "advice")
        candidates.update((key(candidate), candidate) for candidate in advice["candidates"])
    for trial in trials:
        predicted, candidate = trial["predicted"], candidates[key(trial)]
        predicted.update(candidate, refaulted_pages=round(candidate["refaulted_pages_per_s"] * predicted["seconds"]))


def measure(arguments, shape):
    """The trials of one sweep, and what a fault costs. What --keep has is not run again."""
    with tempfile.TemporaryDirectory(prefix="jemtrace-bench-") as directory:
        path = os.path.join(arguments.keep or directory, shape + ".ndjson")
        kept = os.path.exists(path)
        if not kept:
            sweep(arguments, shape, path)
        with open(path) as file:
            lines = [json.loads(line) for line in file]
        trials = [line for line in lines if line["type"] == "trial"]
        if kept:
            predict_again(arguments, path, trials)
        return trials, next(line for line in lines if line["type"] == "series")["costs"]["refault_ns_per_page"]


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
                     "few" if few else f"{100 * (refaults[0] - refaults[1]) / max(refaults):+.1f} %",
                     f"{100 * trial['refaulted_spread']:.0f} %", " ".join(miss)])
    return rows, good


def main():
    arguments = bench.parse_arguments(__doc__.splitlines()[0], repeat=3, grid="", conf="narenas:1", keep="", check=0,
                                      shapes=",".join(SHAPES))
    table, ranks, good = [], [], True
    for shape in arguments.shapes.split(","):
        trials, fault_ns = measure(arguments, shape)
        for into, (rows, within) in ((table, compare(shape, trials)), (ranks, choices(shape, trials, fault_ns))):
            into += rows
            good &= within
    bench.print_table(["", "setting", "MiB said", "MiB was", "off", "refaulted said", "was", "off", "runs differ by",
                       "beyond"], table)
    print()
    bench.print_table(["", "goal", "its choice", "measured as", ""], ranks)
    sys.exit(1 if arguments.check and not good else 0)


if __name__ == "__main__":
    main()
