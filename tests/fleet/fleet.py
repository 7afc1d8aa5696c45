"""What the tests with a fleet share: simulated hosts, a real Prometheus, and asking both."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build"
SIMULATED_HOSTS = os.environ.get("SIMULATED_HOSTS") or BUILD / "tests/fleet/simulated_hosts"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


def get(url, headers=None, timeout=10):
    """Body and headers. A refusal is an urllib.error.HTTPError."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=timeout) as answer:
        return answer.read(), answer.headers


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what, done, limit=60):
    end = time.monotonic() + limit
    while True:
        value = done()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {limit} s")
        time.sleep(0.1)


class Running:
    """A child that is ended with the object; what it says goes to a file."""

    def __init__(self, command, **options):
        self.log = tempfile.NamedTemporaryFile()
        self.process = subprocess.Popen([str(part) for part in command], stdout=self.log, stderr=self.log,
                                        stdin=subprocess.DEVNULL, **options)

    def said(self):
        return Path(self.log.name).read_text(errors="replace")

    def wait_for(self, pattern, limit=60):
        def look():
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended with {self.process.returncode}: {self.said()}")
            return re.search(pattern, self.said())
        return wait_until(pattern, look, limit)

    def rss_bytes(self):
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class SimulatedHosts(Running):
    def __init__(self, *arguments):
        super().__init__([SIMULATED_HOSTS, *arguments])
        self.address = self.wait_for(r"listening on (\S+)").group(1)
        self.host, port = self.address.rsplit(":", 1)
        self.port = int(port)
        self.url = "http://" + self.address

    def truth(self):
        return json.loads(get(self.url + "/truth")[0])


class Prometheus(Running):
    """Debian's, on loopback, with its data in a folder that goes with it."""

    def __init__(self, config, rules=()):
        self.folder = tempfile.mkdtemp(prefix="jemtrace-prometheus-")
        for rule in rules:
            shutil.copy(rule, self.folder)
        Path(self.folder, "prometheus.yml").write_text(config)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(["prometheus", f"--config.file={self.folder}/prometheus.yml",
                          f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{port}",
                          "--enable-feature=native-histograms,exemplar-storage", "--log.level=warn"])
        wait_until("Prometheus", self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError("Prometheus ended: " + self.said())
        try:
            return get(self.url + "/-/ready", timeout=2)
        except OSError:
            return None

    def ask(self, path, **parameters):
        answer = json.loads(get(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", timeout=30)[0])
        if answer["status"] != "success":
            raise RuntimeError(answer)
        return answer["data"]

    def query(self, expression):
        return self.ask("/api/v1/query", query=expression)["result"]

    def value(self, expression):
        """Of an expression with one result; None: it has none yet."""
        result = self.query(expression)
        if len(result) > 1:
            raise RuntimeError(f"{expression} has {len(result)} results")
        return float(result[0]["value"][1]) if result else None

    def stop(self):
        code = super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return code


def scrape_config(jobs, interval="1s"):
    """`jobs`: the URL of a list of targets by the name of the job."""
    lines = ["global:", f"  scrape_interval: {interval}", f"  scrape_timeout: {interval}", "scrape_configs:"]
    for name, url in jobs.items():
        lines += [f"  - job_name: {name}", "    http_sd_configs:", f"      - url: {url}"]
    return "\n".join(lines) + "\n"
