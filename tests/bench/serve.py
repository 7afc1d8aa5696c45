#!/usr/bin/env python3
"""What a scrape of jemtrace serve takes with many targets, and what it costs them.

Each target is a process of its own with jemalloc, and has purged: with a name of its own, so that it has series of its
own. A scrape is timed as a client sees it, on loopback, with snapshots that are too old to be given out again: each one
reads the kernel's maps. Beside it, scrapers that all ask at once.
"""

import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import bench

ACCEPT = {
    "text": "text/plain",
    "openmetrics": "application/openmetrics-text",
    "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
}
# Frees 64 MB with decay times of 0, all in one thread: purges, then sleeps.
PROGRAM = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>
int main(void) {
  char line[8];
  while (fgets(line, sizeof line, stdin)) {
    void *blocks[64];
    for (int i = 0; i < 64; i++) { blocks[i] = malloc(40960 + 4096 * (i % 7)); memset(blocks[i], 1, 4096); }
    for (int i = 0; i < 64; i++) free(blocks[i]);
    puts("done"); fflush(stdout);
  }
  return 0;
}
"""


def main():
    arguments = bench.parse_arguments(__doc__, targets=500, scrapes=40)
    with tempfile.TemporaryDirectory() as folder:
        program = folder + "/target"
        subprocess.run(["cc", "-O1", "-x", "c", "-", "-o", program, "-ljemalloc"], input=PROGRAM, text=True, check=True)
        environment = {**os.environ, "MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0,narenas:1"}
        targets = []
        for i in range(arguments.targets):
            path = f"{folder}/t{i}"
            os.link(program, path)
            targets.append(subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True))
        errors = tempfile.NamedTemporaryFile(mode="r+")
        serve = subprocess.Popen([arguments.jemtrace, "serve", "--listen", "127.0.0.1:0", "-n", "t[0-9]*",
                                  "--max-targets", str(arguments.targets)], stderr=errors)
        try:
            measure(arguments, targets, serve, errors.name)
        finally:
            serve.terminate()
            serve.wait()
            for target in targets:
                target.kill()
                target.wait()


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(arguments, targets, serve, errors):
    begin = time.monotonic()
    while not (address := re.search(r"http://([\d.]+):(\d+)/", open(errors).read())):
        if serve.poll() is not None or time.monotonic() - begin > 60:
            sys.exit(open(errors).read())
        time.sleep(0.05)
    print(f"{arguments.targets} targets; ready after {time.monotonic() - begin:.1f} s")
    for target in targets:
        target.stdin.write("x\n")
        target.stdin.flush()
    for target in targets:
        target.stdout.readline()
    host, port = address.group(1), int(address.group(2))
    time.sleep(1)
    print(f"{'format':<12} {'bytes':>9} {'median':>9} {'p90':>9} {'max':>9}   ms")
    for name, accept in ACCEPT.items():
        connection = http.client.HTTPConnection(host, port)
        took = []
        for _ in range(arguments.scrapes):
            time.sleep(0.26)  # a snapshot is given out again for 0.25 s
            start = time.perf_counter()
            connection.request("GET", "/metrics", headers={"Accept": accept})
            body = connection.getresponse().read()
            took.append((time.perf_counter() - start) * 1000)
        took.sort()
        print(f"{name:<12} {len(body):>9} {statistics.median(took):>9.2f} {took[len(took) * 9 // 10]:>9.2f} {took[-1]:>9.2f}")
        if name == "text":
            count = len(re.findall(rb'^jemtrace_purge_duration_seconds_count', body, re.M))
            build = re.search(rb"^jemtrace_snapshot_duration_seconds (\S+)", body, re.M).group(1)
            print(f"             {count} histograms; the snapshot took {float(build) * 1000:.2f} ms")
    crowd(host, port, serve)
    idle_from = cpu_s(serve.pid)
    time.sleep(20)
    rss = int(open(f"/proc/{serve.pid}/statm").read().split()[1]) * 4096
    print(f"without a scrape: {(cpu_s(serve.pid) - idle_from) / 20 * 100:.2f} % of a CPU; RSS {rss / 1e6:.0f} MB")


def crowd(host, port, serve, scrapers=50, each=10):
    took, before, begin = [], cpu_s(serve.pid), time.monotonic()

    def scrape():
        connection = http.client.HTTPConnection(host, port)
        for _ in range(each):
            start = time.perf_counter()
            connection.request("GET", "/metrics", headers={"Accept": ACCEPT["protobuf"]})
            connection.getresponse().read()
            took.append((time.perf_counter() - start) * 1000)
    threads = [threading.Thread(target=scrape) for _ in range(scrapers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{scrapers} scrapers at once: {scrapers * each} scrapes in {time.monotonic() - begin:.2f} s, "
          f"{(cpu_s(serve.pid) - before) * 1000 / len(took):.2f} ms of CPU each")


if __name__ == "__main__":
    main()
