#!/usr/bin/env python3
"""One real Prometheus scrapes N simulated hosts: what that costs. The figures of docs/scale.md come from here.

usage: fleet.py SIMULATED_HOSTS [--hosts N] [--processes N] [--interval S] [--seconds S]

SIMULATED_HOSTS is build/tests/fleet/simulated_hosts: the expositions are made by the code of `jemtrace serve`. Once with
classic histograms as text, once with native ones as protobuf. Prints a line of NDJSON per kind.
"""

import argparse
import contextlib
import gzip
import json
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROTOBUF = ("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120) as answer:
        return answer.read()


class Prometheus:
    def __init__(self, address, kind, interval, folder):
        self.folder = folder
        shutil.copy(SOURCE / "packaging/prometheus/rules.yml", folder)
        path = {"classic": "/sd/classic", "native": "/sd"}[kind]
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": f"{interval}s", "scrape_timeout": f"{interval}s", "evaluation_interval": "60s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "jemtrace", "http_sd_configs": [{"url": f"http://{address}{path}"}]}]}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        features = ["--enable-feature=native-histograms"] if kind == "native" else []
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={self.url[7:]}", *features], stderr=self.log)
        for _ in range(300):
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                return get(self.url + "/-/ready") and None
        raise RuntimeError((folder / "log").read_text())

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def query(self, expr):
        """Result and seconds."""
        start = time.monotonic()
        answer = json.loads(get(f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": expr})))
        return answer["data"]["result"], time.monotonic() - start

    def number(self, expr):
        result, _ = self.query(expr)
        return float(result[0]["value"][1]) if result else None

    def query_range(self, expr, seconds):
        now = time.time()
        arguments = {"query": expr, "start": now - seconds, "end": now, "step": 15}
        start = time.monotonic()
        get(f"{self.url}/api/v1/query_range?" + urllib.parse.urlencode(arguments))
        return time.monotonic() - start

    def own(self, name):
        found = re.search(rf"^{name} (\S+)$", get(self.url + "/metrics").decode(), re.M)
        return float(found.group(1))

    def disk(self):
        return sum(f.stat().st_size for f in (self.folder / "data").rglob("*") if f.is_file())


RATES = {
    "classic": "sum by (le) (rate(jemtrace_purge_duration_seconds_bucket[1m]))",
    "native": "sum(rate(jemtrace_purge_duration_seconds[1m]))",
}


def measure(address, kind, args):
    path = "/classic/host/7/metrics" if kind == "classic" else "/host/7/metrics"
    body = get(f"http://{address}{path}", Accept=PROTOBUF if kind == "native" else "text/plain")
    with tempfile.TemporaryDirectory() as folder:
        server = Prometheus(address, kind, args.interval, pathlib.Path(folder))
        try:
            time.sleep(2 * args.interval + 5)
            cpu, disk, appended = server.own("process_cpu_seconds_total"), server.disk(), server.number(
                "sum(scrape_samples_scraped)")
            start = time.monotonic()
            time.sleep(args.seconds)
            elapsed = time.monotonic() - start
            cpu = (server.own("process_cpu_seconds_total") - cpu) / elapsed
            written = (server.disk() - disk) / elapsed
            quantile = f"histogram_quantile(0.99, {RATES[kind]})"
            out = {
                "kind": kind,
                "hosts": args.hosts,
                "up": server.number("sum(up)"),
                "processes_per_host": args.processes,
                "scrape_interval_s": args.interval,
                "body_bytes": len(body),
                "body_gzip_bytes": len(gzip.compress(body, 6)),
                "samples_per_host": server.number("avg(scrape_samples_scraped)"),
                "series_head": server.own("prometheus_tsdb_head_series"),
                "samples_per_scrape_round": appended,
                "scrape_seconds_p50": server.number("quantile(0.5, scrape_duration_seconds)"),
                "scrape_seconds_p99": server.number("quantile(0.99, scrape_duration_seconds)"),
                "prometheus_cpu": round(cpu, 3),
                "prometheus_rss_bytes": server.own("process_resident_memory_bytes"),
                "heap_inuse_bytes": server.own("go_memstats_heap_inuse_bytes"),
                "wal_bytes_per_second": round(written),
                "query_p99_raw_s": min(server.query(quantile)[1] for _ in range(2)),
                "query_p99_raw_range_s": server.query_range(quantile, args.seconds),
                "fleet_p99_s": server.number(quantile),
                "query_recorded_s": min(
                    server.query(f"fleet:jemtrace_purge_duration_seconds:p99_{kind}")[1] for _ in range(5)),
            }
            out["series_per_host"] = round(out["series_head"] / args.hosts, 1)
            out["bytes_per_series"] = round(out["heap_inuse_bytes"] / out["series_head"])
            print(json.dumps(out), flush=True)
        finally:
            server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulated_hosts")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=10, help="names with jemalloc per host")
    parser.add_argument("--interval", type=int, default=15, help="seconds between scrapes")
    parser.add_argument("--seconds", type=int, default=60, help="how long to measure")
    parser.add_argument("--kinds", default="classic,native")
    args = parser.parse_args()
    hosts = subprocess.Popen([args.simulated_hosts, "--hosts", str(args.hosts), "--processes", str(args.processes),
                              "--rate", "2"], stdout=subprocess.PIPE, text=True)
    try:
        address = hosts.stdout.readline().split()[-1]
        for kind in args.kinds.split(","):
            measure(address, kind, args)
    finally:
        hosts.terminate()
        hosts.wait()


if __name__ == "__main__":
    main()
