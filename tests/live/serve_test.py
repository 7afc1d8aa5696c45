#!/usr/bin/python3 -B
"""jemtrace serve with real processes.   ctest -L live, as root

Oracles: jemtrace's own summary for the same process and time, which other tests compare with jemalloc's counters; and
a strict parser of OpenMetrics that shares no code with what it reads.
"""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fleet"))

import fleet  # noqa: E402
import openmetrics  # noqa: E402
from otlp import Collector  # noqa: E402

JEMTRACE = os.environ.get("JEMTRACE") or os.environ.get("JEMTRACE_BUILT") or fleet.BUILD / "userspace/jemtrace"
REQUIRED = os.environ.get("JEMTRACE_LIVE") == "require" or os.environ.get("CI") == "true"
DURATION = "jemtrace_purge_duration_seconds"
LIBJEMALLOC = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"


def setUpModule():
    if os.geteuid() != 0 or subprocess.run([JEMTRACE, "check"], capture_output=True, check=False).returncode != 0:
        if REQUIRED:
            raise RuntimeError("this host cannot trace")
        raise unittest.SkipTest("this host cannot trace")


class Serve(fleet.Running):
    def __init__(self, *arguments, **options):
        if "--listen" not in arguments:
            arguments = ("--listen", "127.0.0.1:0", *arguments)
        super().__init__([JEMTRACE, "serve", *arguments], **options)
        self.scheme, self.address = self.wait_for(r"metrics at (https?)://(\S+)/metrics").groups()
        self.url = f"{self.scheme}://{self.address}"

    def families(self):
        return openmetrics.parse(fleet.get(self.url + "/metrics", {"Accept": fleet.OPENMETRICS})[0])

    def wait_for_sum(self, wanted, *of, **labels):
        """The first answer in which all series with these labels add up to `wanted`; the last one, if none does."""
        def equal():
            nonlocal families
            families = self.families()
            return sum(values(families, *of, **labels).values()) == wanted
        families = None
        try:
            fleet.wait_until("sum", equal)
        except TimeoutError:
            pass
        return families


def values(families, family, sample, **labels):
    """Of all series with these labels, by the other ones."""
    if family not in families:
        return {}
    return {one.key(without=labels): one.value for one in families[family].samples
            if one.name == sample and all(one.labels.get(k) == v for k, v in labels.items())}


class Redis(fleet.Running):
    def __init__(self):
        self.port = str(fleet.free_port())
        super().__init__(["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
                         env={**os.environ, "MALLOC_CONF": "dirty_decay_ms:200,muzzy_decay_ms:200"})
        self.wait_for("Ready to accept connections")
        self.pid = self.process.pid

    def ask(self, *command):
        subprocess.run(["redis-cli", "-p", self.port, *command], check=True, capture_output=True)

    def churn(self, requests=20000):
        subprocess.run(["redis-benchmark", "-p", self.port, "-q", "-t", "set", "-n", str(requests), "-r", "20000", "-d",
                        "3000"], check=True, capture_output=True)
        self.ask("flushall")
        self.ask("memory", "purge")


class WithRedis(unittest.TestCase):
    def test_scrape_equals_the_summary_of_a_trace(self):
        with Redis() as redis, tempfile.NamedTemporaryFile() as out:
            redis.ask("config", "set", "jemalloc-bg-thread", "no")  # nothing happens unless asked for
            redis.ask("memory", "purge")
            tracer = fleet.Running([JEMTRACE, "-v", "-p", redis.pid, "-f", "json", "-o", out.name])
            with tracer, Serve("-p", str(redis.pid)) as serve:
                tracer.wait_for("scan:")
                redis.ask("config", "set", "jemalloc-bg-thread", "yes")
                redis.churn()
                redis.ask("config", "set", "jemalloc-bg-thread", "no")
                tracer.stop()
                summary = next(line for line in map(json.loads, Path(out.name).read_text().splitlines())
                               if line["type"] == "summary")
                families = serve.wait_for_sum(sum(told["latency"]["count"] for told in summary["transitions"].values()),
                                              DURATION, DURATION + "_count")
        self.assertTrue(all(count == 0 for count in summary["losses"].values()), summary["losses"])
        calls = 0
        for transition, told in summary["transitions"].items():
            for payer in ("app", "background"):
                one = (told["by_payer"].get(payer) or {}).get("latency") or {"count": 0, "sum_ns": 0}
                labels = {"transition": transition, "payer": payer, "name": "redis-server"}
                count = sum(values(families, DURATION, DURATION + "_count", **labels).values())
                total = sum(values(families, DURATION, DURATION + "_sum", **labels).values())
                self.assertEqual(count, one["count"], (transition, payer))
                # Each tracer times the call by itself, and waits for the other in it.
                self.assertAlmostEqual(total, one["sum_ns"] / 1e9, delta=0.001 + 0.5 * total)
                calls += count
            bytes_total = sum(values(families, "jemtrace_purged_bytes", "jemtrace_purged_bytes_total",
                                     transition=transition).values())
            self.assertEqual(bytes_total, told["bytes_total"], transition)
        self.assertGreater(calls, 50)
        for state in ("dirty", "muzzy"):
            sweeps = sum(values(families, "jemtrace_sweeps", "jemtrace_sweeps_total", state=state).values())
            self.assertEqual(sweeps, summary["sweeps"][state]["count"], state)
        info = families["jemtrace_target"].samples[0].labels
        self.assertEqual(info["linkage"], "shared")
        self.assertTrue(info["version"].startswith("5."))

    def test_all_that_is_said_is_sound(self):
        with Redis() as redis, Collector() as collector:
            with Serve("-n", "redis-*", "-i", "500ms", "--otlp", collector.url, "--otlp-interval", "1s") as serve:
                redis.churn()
                wanted = {"jemtrace_rss_bytes", "jemtrace_state_bytes", "jemtrace_lost_events", "jemtrace_targets",
                          "jemtrace_target", "jemtrace_build", "jemtrace_sampling_seconds", DURATION}
                fleet.wait_until("a sample", lambda: wanted <= set(serve.families()))
                families = serve.families()
                # Those of 0.1 ms and more have exemplars.
                for one in families[DURATION].samples:
                    if one.exemplar:
                        self.assertEqual(one.exemplar[0]["pid"], str(redis.pid))
                        self.assertGreaterEqual(one.exemplar[1], 1e-4)
                beyond = sum(values(families, DURATION, DURATION + "_count").values()) - sum(
                    values(families, DURATION, DURATION + "_bucket", le=repr(2.0 ** -13)).values())
                if beyond > 0:
                    self.assertTrue(any(one.exemplar for one in families[DURATION].samples))
                text = fleet.get(serve.url + "/metrics")[0]
                done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                fleet.wait_until("a sample of what is resident now", lambda: abs(redis.rss_bytes() - sum(
                    values(serve.families(), "jemtrace_rss_bytes", "jemtrace_rss_bytes", name="redis-server").values())) < 2e6)
                fleet.wait_until("pushes of what can be scraped", lambda: len(collector.requests) > 1 and sum(
                    point.count for point in
                    collector.metrics()["jemtrace_purge_duration"].exponential_histogram.data_points) == sum(
                        values(serve.families(), DURATION, DURATION + "_count").values()))
                self.check_documented(families)
            self.assertEqual(serve.process.returncode, 0)

    def check_documented(self, families):
        text = (HERE.parents[1] / "docs/metrics.md").read_text()
        for name, family in families.items():
            sample = name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            self.assertIn(f"`{sample}`", text)

    def test_scrapes_while_targets_come_and_die(self):
        ours = f"j{os.getpid()}_"  # others on this host may use jemalloc too; the kernel keeps 15 bytes of a name
        names = [f"{ours}{i}" for i in range(8)]
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                shutil.copy("/bin/true", f"{folder}/{name}")
            shutil.copy("/bin/sleep", f"{folder}/{ours}known")
            environment = {**os.environ, "LD_PRELOAD": LIBJEMALLOC}
            known = fleet.Running([f"{folder}/{ours}known", "600"], env=environment)  # its jemalloc has been looked at
            with known, Serve("-n", f"{ours}*", "--max-targets", "5", "-i", "200ms") as serve:
                fleet.wait_until("the known one", lambda: values(serve.families(), "jemtrace_target_processes",
                                                                 "jemtrace_target_processes"))
                end = time.monotonic() + 6
                started, last = 0, {}
                begin_rss = serve.rss_bytes()
                stop = threading.Event()

                def churn():
                    nonlocal started
                    while not stop.is_set():
                        for name in names:
                            subprocess.run([f"{folder}/{name}"], env=environment, check=True)
                            started += 1
                thread = threading.Thread(target=churn)
                thread.start()
                try:
                    scrapes = 0
                    while time.monotonic() < end:
                        families = serve.families()
                        scrapes += 1
                        for family in families.values():
                            if family.type != "counter":
                                continue
                            for one in family.samples:
                                key = (one.name, one.key())
                                self.assertGreaterEqual(one.value, last.get(key, 0), one.line)
                                last[key] = one.value
                finally:
                    stop.set()
                    thread.join()
                counted = ("jemtrace_seen_targets", "jemtrace_seen_targets_total")
                families = serve.wait_for_sum(started + 1, *counted)
                self.assertEqual(sum(values(families, *counted).values()), started + 1)
                self.assertLessEqual(len(values(serve.families(), "jemtrace_target_processes", "jemtrace_target_processes")), 6)
                print(f"{started} processes in 6 s, {scrapes} scrapes, RSS {(serve.rss_bytes() - begin_rss) / 1e6:+.1f} MB")
                self.assertLess(serve.rss_bytes() - begin_rss, 20e6)


class Protected(unittest.TestCase):
    def run_to_end(self, *arguments):
        return subprocess.run([JEMTRACE, "serve", *arguments], capture_output=True, text=True, timeout=60, check=False)

    def test_other_hosts_need_a_token_or_tls_or_a_word(self):
        done = self.run_to_end("--listen", "0.0.0.0:0")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--token-file", done.stderr)
        with Serve("--listen", "0.0.0.0:0", "--insecure", "-n", "nobody") as serve:
            port = serve.address.rsplit(":", 1)[1]
            self.assertEqual(fleet.get(f"http://127.0.0.1:{port}/-/ready")[0], b"ready\n")

    def test_a_token_opens_metrics(self):
        with tempfile.NamedTemporaryFile("w") as token:
            token.write("0123456789abcdef0123456789abcdef\n")
            token.flush()
            with Serve("--token-file", token.name, "--listen", "0.0.0.0:0", "-n", "nobody") as serve:
                url = "http://127.0.0.1:" + serve.address.rsplit(":", 1)[1]
                with self.assertRaises(urllib.error.HTTPError) as refused:
                    fleet.get(url + "/metrics")
                self.assertEqual(refused.exception.code, 401)
                refused.exception.close()
                body, _ = fleet.get(url + "/metrics", {"Authorization": "Bearer 0123456789abcdef0123456789abcdef"})
                self.assertIn(b"jemtrace_targets 0\n", body)
            token.seek(0)
            token.truncate()
            token.write("short")
            token.flush()
            self.assertEqual(self.run_to_end("--token-file", token.name).returncode, 2)

    def test_tls_is_spoken(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                            "-keyout", f"{folder}/key", "-out", f"{folder}/cert", "-days", "1", "-subj", "/CN=localhost",
                            "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
            with Serve("--tls-cert", f"{folder}/cert", "--tls-key", f"{folder}/key", "-n", "nobody") as serve:
                self.assertEqual(serve.scheme, "https")
                context = ssl.create_default_context(cafile=f"{folder}/cert")
                host, port = serve.address.rsplit(":", 1)
                connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=5)
                for _ in range(3):
                    connection.request("GET", "/metrics")
                    answer = connection.getresponse()
                    self.assertEqual(answer.status, 200)
                    self.assertIn(b"jemtrace_targets 0\n", answer.read())
                connection.close()
                with socket.create_connection((host, int(port))) as plain:
                    plain.settimeout(5)
                    plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    try:
                        self.assertNotIn(b"jemtrace_targets", plain.recv(65536))
                    except ConnectionError:
                        pass
                old = ssl.create_default_context(cafile=f"{folder}/cert")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    old.maximum_version = ssl.TLSVersion.TLSv1_1
                with self.assertRaises((ssl.SSLError, ConnectionError)):
                    with socket.create_connection((host, int(port))) as raw:
                        old.wrap_socket(raw, server_hostname=host).recv(1)
            done = self.run_to_end("--tls-cert", f"{folder}/key", "--tls-key", f"{folder}/key")
            self.assertEqual(done.returncode, 2)
            self.assertEqual(self.run_to_end("--tls-cert", f"{folder}/cert").returncode, 2)

    def test_an_address_that_is_taken_is_an_error(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = self.run_to_end("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        self.assertEqual(done.returncode, 1)
        self.assertIn("hint:", done.stderr)


class UnderSystemd(unittest.TestCase):
    def test_it_says_when_it_is_ready_alive_and_going(self):
        with tempfile.TemporaryDirectory() as folder:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
                listener.bind(f"{folder}/notify")
                listener.settimeout(60)
                environment = {**os.environ, "NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "400000"}
                with Serve("-n", "nobody", env=environment) as serve:
                    said = [listener.recv(100) for _ in range(4)]
                    serve.stop()
                    while said[-1] != b"STOPPING=1":
                        said.append(listener.recv(100))
        self.assertEqual(said[0], b"READY=1")
        self.assertGreaterEqual(said.count(b"WATCHDOG=1"), 3)

    def test_it_takes_the_socket_that_it_is_given(self):
        with socket.create_server(("127.0.0.1", 0)) as given:
            port = given.getsockname()[1]
            # The pid of the program is only known behind fork.
            command = ["/bin/sh", "-c", f'exec 3<&{given.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh",
                       str(JEMTRACE), "serve", "-n", "nobody"]
            with fleet.Running(command, pass_fds=[given.fileno()]) as serve:
                serve.wait_for(f"127.0.0.1:{port}/metrics")
                self.assertIn(b"jemtrace_targets 0\n", fleet.get(f"http://127.0.0.1:{port}/metrics")[0])


if __name__ == "__main__":
    unittest.main()
