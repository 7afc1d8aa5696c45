#!/usr/bin/env python3
"""Every diagnosis on a program that has it, and HEALTHY on programs in which all is well: is the right finding first, and no false one beside it?

The commands are those of docs/diagnoses.md. Idle programs are watched together, by one jemtrace, so that each is also one
among many, and so are some healthy ones at work; the others one by one. A finding of severity "info" beside the right one is true of the program and no false one;
the table shows it. Status 1 when a run was wrong. By hand: --runs 20 takes about 45 minutes.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import bench

CGROUPS = "/sys/fs/cgroup/memory"  # version 1
READY = "done="
KEEP_ALL = "MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1"
PURGE_AT_ONCE = "MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0,oversize_threshold:0"


@dataclasses.dataclass(frozen=True)
class Case:
    id: str
    command: str  # a workload and its arguments, or "redis", or "redis loaded"
    environment: str = ""
    seconds: float = 2  # the window
    group: str = ""  # those of a group are watched together; "": alone
    ready: str = READY  # what it prints once it is as it should be; "": never mind
    limit_mib: int = 0  # in a cgroup of so much
    then: str = ""  # what happens within the window: a line for its stdin, or "press"

    def name(self):
        return " ".join(filter(None, [self.environment, self.command]))


def idle(id, command, environment="", **more):
    return Case(id, command, environment, group="idle", **more)


def at_work(command, environment="", ready=""):
    """Healthy, and leaves some of the CPUs to others."""
    return Case("HEALTHY", command, environment, group="at work", ready=ready)


CASES = [
    idle("STUCK_DIRTY", "held state=dirty mib=256", "MALLOC_CONF=dirty_decay_ms:200"),
    idle("STUCK_DIRTY", "held state=dirty mib=256", "MALLOC_CONF=dirty_decay_ms:-1"),
    idle("LAZYFREE_INFLATED", "held state=lazyfree mib=400", KEEP_ALL),
    Case("LAZYFREE_STARVED", "held state=lazyfree mib=300", KEEP_ALL, limit_mib=640, then="press"),
    Case("LAZYFREE_CANCELLED_BY_COLLAPSE", "held state=lazyfree mib=400", KEEP_ALL, then="collapse", seconds=1.5),
    idle("KHUGEPAGED_REFILL", "held state=refilled mib=400", "MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:0"),
    idle("GHOST_THP", "held state=retained mib=400 keep=2", "MALLOC_CONF=thp:always,dirty_decay_ms:-1,muzzy_decay_ms:0",
         limit_mib=1500),
    Case("EAGER_OVERSIZE", "oversize rounds=1000", ready="", seconds=1),
    Case("APP_THREADS_PAY", "purging mode=drain kib=65536 count=24 pause_us=80000 start_ms=1000", PURGE_AT_ONCE, seconds=3),
    Case("LOCK_BOUND_PURGE", "purging kib=256 pause_us=200 readers=2 hold_mib=600",
         "MALLOC_CONF=retain:false,dirty_decay_ms:0,muzzy_decay_ms:0,oversize_threshold:0", seconds=1),
    Case("WORK_BOUND_PURGE", "purging mode=drain kib=131072 count=24 pause_us=60000 start_ms=700",
         "MALLOC_CONF=background_thread:true,dirty_decay_ms:100,muzzy_decay_ms:0,oversize_threshold:0", seconds=3),
    Case("SHOOTDOWN_BOUND", "purging mode=drain kib=16 count=80000 keep=2 pause_us=0 start_ms=1500 spinners=1",
         "MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0,tcache:false", seconds=3),
    Case("PURGE_THRASH", "purging kib=2048 pause_us=1000", PURGE_AT_ONCE, seconds=1),
    Case("FRAGMENTED", "held state=fragmented mib=400 keep=8", "MALLOC_CONF=dirty_decay_ms:1000,background_thread:true",
         seconds=1),
    idle("ARENA_SPRAWL", "held state=sprawl mib=256", "MALLOC_CONF=narenas:32,dirty_decay_ms:200"),
    idle("CONF_NOT_APPLIED", "held state=dirty mib=16", "_RJEM_MALLOC_CONF=background_thread:true"),
    idle("CONF_NOT_APPLIED", "held state=dirty mib=16", "MALLOC_CONF=dirty_decay:500"),
    idle("VMA_EXPLOSION", "held state=mappings", "MALLOC_CONF=retain:false,dirty_decay_ms:0,muzzy_decay_ms:0,tcache:false"),
    idle("NOT_JEMALLOC", "held state=other mib=256"),
    idle("VIRT_ONLY", "held state=virtual mib=2048", "MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:0"),
    idle("MLOCKED", "held state=locked mib=256", "MALLOC_CONF=dirty_decay_ms:-1"),
    idle("FORK_SHARED", "held state=forked mib=400", KEEP_ALL),
    Case("OOM_CONTEXT", "held state=dirty mib=128", "MALLOC_CONF=dirty_decay_ms:-1", limit_mib=300, then="grow"),
    idle("HEALTHY", "held state=dirty mib=16"),
    idle("HEALTHY", "held state=untouched mib=64"),
    idle("HEALTHY", "controlled", ready=""),
    idle("HEALTHY", "redis", ready="Ready to accept connections"),
    Case("HEALTHY", "redis loaded", ready="Ready to accept connections"),
    at_work("batch rounds=1000"),
    at_work("batch rounds=1000", "MALLOC_CONF=background_thread:true"),
    at_work("multi_arena rounds=1000", "MALLOC_CONF=background_thread:true,dirty_decay_ms:1000"),
    at_work("shapes shape=bursty live_mib=64 period_ms=1000", "MALLOC_CONF=background_thread:true"),
    at_work("shapes shape=steady live_mib=64", "MALLOC_CONF=dirty_decay_ms:5000,muzzy_decay_ms:5000"),
    at_work("purging kib=512 pause_us=3000", "MALLOC_CONF=background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:500", READY),
    Case("HEALTHY", "steady ms=20000", ready=""),
    Case("HEALTHY", "static_steady ms=20000", ready=""),
    Case("HEALTHY", "busy rounds=4000", ready=""),
]


class Cgroup:
    def __init__(self, limit_mib):
        self.path = tempfile.mkdtemp(prefix="jemtrace_", dir=CGROUPS)
        self.write("memory.limit_in_bytes", limit_mib << 20)

    def write(self, name, value):
        with open(os.path.join(self.path, name), "w") as file:
            file.write(str(value))

    def enter(self):
        self.write("cgroup.procs", os.getpid())

    def run(self, *command):
        subprocess.run(command, preexec_fn=self.enter, check=True, stderr=subprocess.DEVNULL)

    def remove(self):
        for _ in range(100):  # its processes are on their way out
            with contextlib.suppress(OSError):
                return os.rmdir(self.path)
            time.sleep(0.02)


def fill_page_cache(cgroup, directory):
    """Clean page cache, charged to the cgroup and older than all else there."""
    path = os.path.join(directory, "cached")
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=200", "conv=fsync"], check=True,
                   stderr=subprocess.DEVNULL)
    with open(path) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cgroup.run("dd", f"if={path}", "of=/dev/null", "bs=1M")


class Program:
    """A case's program, brought to where it can be watched."""

    def __init__(self, case, workloads):
        self.case, self.workloads = case, workloads
        self.directory = tempfile.TemporaryDirectory(prefix="jemtrace-bench-")
        self.cgroup = Cgroup(case.limit_mib) if case.limit_mib else None
        self.beside = []
        self.port = str(random.randint(20000, 40000))
        if case.then == "press":
            fill_page_cache(self.cgroup, self.directory.name)
        environment = {k: v for k, v in os.environ.items() if not k.endswith("MALLOC_CONF")}
        if case.environment:
            environment.update([case.environment.split("=", 1)])
        self.process = self.start(self.command(), environment)
        self.said_ready = threading.Event()
        threading.Thread(target=self.read, daemon=True).start()

    def command(self):
        name, *arguments = self.case.command.split()
        if name == "redis":
            return ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return [os.path.join(self.workloads, name), *arguments]

    def start(self, command, environment=None):
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                                cwd=self.directory.name, preexec_fn=self.cgroup.enter if self.cgroup else None)

    def read(self):
        for line in self.process.stdout:
            if self.case.ready and self.case.ready in line:
                self.said_ready.set()

    def wait(self):
        if self.case.ready:
            if not self.said_ready.wait(60):
                raise RuntimeError(f"{self.case.name()}: not ready")
        else:
            time.sleep(0.3)
        if self.case.command == "redis loaded":
            self.beside.append(subprocess.Popen(["redis-benchmark", "-p", self.port, "-q", "-t", "set,get", "-n", "20000000",
                                                 "-r", "50000", "-d", "500"], stdout=subprocess.DEVNULL))

    def act(self):
        if self.case.then == "press":
            self.beside.append(self.start([os.path.join(self.workloads, "held"), "state=other", "mib=200"]))
        elif self.case.then:
            self.process.stdin.write(self.case.then + "\n")
            self.process.stdin.flush()

    def end(self):
        for process in [*self.beside, self.process]:
            process.kill()
            process.wait()
        if self.cgroup:
            self.cgroup.remove()
        self.directory.cleanup()


def diagnose(jemtrace, programs, seconds):
    """The findings of each program, most important first."""
    pids = [program.process.pid for program in programs]
    command = [jemtrace, "diagnose", "-p", ",".join(map(str, pids)), "-d", f"{int(seconds * 1000)}ms", "-f", "json"]
    found = {pid: [] for pid in pids}
    targets = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for text in process.stdout:
            line = json.loads(text)
            targets += line["type"] == "target"
            if line["type"] == "target" and targets == len(pids):
                threading.Timer(0.7, lambda: [program.act() for program in programs]).start()  # after its first look
            elif line["type"] == "finding":
                found[line["pid"]].append(line)
        errors = process.stderr.read()
    if process.returncode != 0:
        raise RuntimeError(f"jemtrace diagnose: status {process.returncode}: {errors}")
    return [found[pid] for pid in pids]


class Tally:
    def __init__(self):
        self.runs = self.right = self.clean = 0
        self.others = {}

    def add(self, case, findings, log=None):
        """`findings` have at least id and severity."""
        self.runs += 1
        ids = [finding["id"] for finding in findings]
        false = [finding for finding in findings if finding["id"] != case.id and finding["severity"] != "info"]
        right = ids[:1] == [case.id]
        self.right += right
        self.clean += not false
        for id in ids or ["none"]:
            if id != case.id:
                self.others[id] = self.others.get(id, 0) + 1
        if log:
            brief = [{"id": finding["id"], "severity": finding["severity"]} for finding in findings]
            print(json.dumps({"id": case.id, "case": case.name(), "findings": brief}), file=log, flush=True)
        if log and (not right or false):
            print(f"WRONG: {case.id}: {case.name()}: {ids}", *map(json.dumps, findings), sep="\n", file=sys.stderr, flush=True)

    def ok(self):
        return self.runs == self.right == self.clean

    def row(self, case):
        others = ", ".join(f"{id} {count}" for id, count in self.others.items())
        return [case.id, str(self.runs), str(self.right), str(self.runs - self.clean), others or "-", case.name()]


class Turn:
    """The lock of those who measure on this machine, given up now and then."""

    def __init__(self, path, most_s=150):
        self.file, self.most_s, self.since = open(path, "w") if path else None, most_s, None

    def take(self):
        """True if others may have had theirs since the last time."""
        if self.file and self.since is not None and time.monotonic() - self.since > self.most_s:
            fcntl.flock(self.file, fcntl.LOCK_UN)
            self.since = None
            time.sleep(1)
        if not self.file or self.since is not None:
            return False
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.since = time.monotonic()
        return True


def watch(cases, arguments, tallies):
    with contextlib.ExitStack() as stack:
        programs = []
        for case in cases:
            programs.append(Program(case, arguments.workloads))
            stack.callback(programs[-1].end)
        for program in programs:
            program.wait()
        found = diagnose(arguments.jemtrace, programs, max(case.seconds for case in cases))
    for case, findings in zip(cases, found):
        tallies[case].add(case, findings, arguments.log)


def read_log(log, tallies):
    """What others with the same log have found, and earlier runs, counts, too."""
    for tally in tallies.values():
        tally.__init__()
    named = {(case.id, case.name()): case for case in tallies}
    log.seek(0)
    for line in map(json.loads, log):
        case = named.get((line["id"], line["case"]))
        if case:
            tallies[case].add(case, line["findings"])


def main():
    arguments = bench.parse_arguments(__doc__.splitlines()[0], runs=1, only="", lock="", log="")
    arguments.workloads = os.path.abspath(arguments.workloads)
    wanted = [case for case in CASES if not arguments.only or case.id in arguments.only.split(",")]
    skipped = [case for case in wanted if case.limit_mib and not os.path.isdir(CGROUPS)
               or case.command.startswith("redis") and not shutil.which("redis-server")]
    tallies = {case: Tally() for case in wanted if case not in skipped}
    groups = {}
    for case in tallies:
        groups.setdefault(case.group or case, []).append(case)
    turn = Turn(arguments.lock)
    arguments.log = open(arguments.log, "a+") if arguments.log else tempfile.TemporaryFile("w+")
    read_log(arguments.log, tallies)
    try:
        for run in range(1, arguments.runs + 1):
            for group in groups.values():
                due = [case for case in group if tallies[case].runs < run]
                if due and turn.take():
                    read_log(arguments.log, tallies)
                    due = [case for case in group if tallies[case].runs < run]
                if due:
                    watch(due, arguments, tallies)
            print(f"run {run} of {arguments.runs}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass  # what is there is printed
    print("skipped:", [case.name() for case in skipped]) if skipped else None
    for row in [["", "runs", "right", "false", "others", ""], *(tally.row(case) for case, tally in tallies.items())]:
        print("{:30} {:>4} {:>5} {:>5}  {:20} {}".format(*row))
    sys.exit(not all(tally.ok() for tally in tallies.values()))


if __name__ == "__main__":
    main()
