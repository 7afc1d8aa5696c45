#!/usr/bin/env python3
"""Rules, alerts and dashboard for Prometheus and Grafana: well-formed, over metrics that exist, and running.

usage: prometheus_test.py SOURCE_DIR [SIMULATED_HOSTS]     with the program: every query against a real Prometheus
"""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

import yaml

SOURCE = pathlib.Path(sys.argv[1])
HOSTS = sys.argv[2] if len(sys.argv) > 2 else None
RULES = SOURCE / "packaging/prometheus/rules.yml"
DASHBOARD = json.loads((SOURCE / "packaging/grafana/jemtrace.json").read_text())
SUFFIXES = ("_bucket", "_sum", "_count", "_total", "_info", "")
UNITS = {"short", "none", "s", "bytes", "Bps", "ops", "percentunit"}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries():
    """(where, expression) of the dashboard, with Grafana's variables filled in."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$name", ".*")
            yield f"{panel['title']} {target['refId']}", expr


def exported():
    """Names of the families that serve writes, without the suffix of their samples."""
    text = (SOURCE / "userspace/serve/accounts.cpp").read_text()
    return set(re.findall(r'"(jemtrace_[a-z_]+)"', text))


def metrics_in(expr):
    return set(re.findall(r"\b((?:[a-z_]+:)?jemtrace_[a-z0-9_:]+|[a-z_]+:jemtrace_[a-z0-9_:]+)", expr))


class Files(unittest.TestCase):
    def promtool(self, *args):
        done = subprocess.run(["promtool", *map(str, args)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_rules_are_accepted_and_do_what_they_should(self):
        self.promtool("check", "rules", RULES)
        self.promtool("test", "rules", RULES.with_name("rules_test.yml"))

    def test_a_wrong_expectation_fails(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(RULES, folder)
            test = pathlib.Path(folder) / "rules_test.yml"
            test.write_text(RULES.with_name("rules_test.yml").read_text().replace("value: 0.75", "value: 0.76"))
            self.assertNotEqual(subprocess.run(["promtool", "test", "rules", test], capture_output=True).returncode, 0)

    def test_every_alert_is_tested_has_hysteresis_and_says_what_to_do(self):
        tested = RULES.with_name("rules_test.yml").read_text()
        for alert in (rule for rule in rules() if "alert" in rule):
            with self.subTest(alert["alert"]):
                self.assertIn("for", alert)
                self.assertIn(alert["labels"]["severity"], ("info", "warning", "critical"))
                self.assertTrue(alert["annotations"]["summary"] and alert["annotations"]["description"])
                self.assertIn(f"alertname: {alert['alert']}\n", tested)

    def test_findings_in_rules_are_diagnoses(self):
        known = set(re.findall(r"^## ([A-Z_]+)$", (SOURCE / "docs/diagnoses.md").read_text(), re.M))
        for rule in rules():
            for ids in re.findall(r'id!?=~?"([A-Z_|]+)"', rule["expr"]):
                self.assertLessEqual(set(ids.split("|")), known)

    def test_metrics_exist(self):
        if not (SOURCE / "userspace/serve/accounts.cpp").exists():
            self.skipTest("no serve")
        known = {name + suffix for name in exported() for suffix in SUFFIXES} | {r.get("record") for r in rules()}
        for where, expr in list(queries()) + [(str(r), r["expr"]) for r in rules()]:
            self.assertLessEqual(metrics_in(expr), known, where)

    def test_dashboard_parses(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            group = {"name": "d", "rules": [{"record": f"q:{i}", "expr": e} for i, (_, e) in enumerate(queries())]}
            yaml.safe_dump({"groups": [group]}, file)
            file.flush()
            self.promtool("check", "rules", file.name)

    def test_dashboard_has_the_shape_of_one(self):
        self.assertEqual(DASHBOARD["uid"], "jemtrace-fleet")
        self.assertGreaterEqual(DASHBOARD["schemaVersion"], 36)
        self.assertLess({"title", "time", "refresh", "templating", "annotations", "panels"}, DASHBOARD.keys())
        variables = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
        self.assertEqual(variables["datasource"]["type"], "datasource")
        ids, cells = set(), set()
        for panel in DASHBOARD["panels"]:
            with self.subTest(panel["title"]):
                self.assertNotIn(panel["id"], ids)
                ids.add(panel["id"])
                self.assertIn(panel["type"], ("stat", "timeseries", "heatmap", "table"))
                self.assertIn(panel["fieldConfig"]["defaults"]["unit"], UNITS)
                at = panel["gridPos"]
                mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
                self.assertTrue(all(0 <= x < 24 for x, _ in mine))
                self.assertFalse(mine & cells, "overlaps")
                cells |= mine
                refs = [t["refId"] for t in panel["targets"]]
                self.assertTrue(refs and len(set(refs)) == len(refs))
                for target in panel["targets"]:
                    self.assertEqual(target["datasource"]["uid"], "${datasource}")
                    self.assertLessEqual(set(re.findall(r"\$(\w+)", target["expr"])), {*variables, "__rate_interval"})


@unittest.skipUnless(HOSTS, "no simulated hosts")
class Running(unittest.TestCase):
    """Two seconds between scrapes, 20 hosts, once as native and once as classic histograms."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.children = []
        hosts = subprocess.Popen([HOSTS, "--hosts", "20", "--rate", "50"], stdout=subprocess.PIPE, text=True)
        cls.children.append(hosts)
        address = hosts.stdout.readline().split()[-1]
        cls.servers = {kind: cls.prometheus(address, kind) for kind in ("native", "classic")}

    @classmethod
    def prometheus(cls, address, kind):
        folder = pathlib.Path(cls.folder.name) / kind
        folder.mkdir()
        shutil.copy(RULES, folder)
        groups = (folder / "rules.yml").read_text().replace("interval: 1m", "interval: 2s")
        (folder / "rules.yml").write_text(groups)
        path = "/sd" if kind == "native" else "/sd/classic"
        config = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "jemtrace", "http_sd_configs": [{"url": f"http://{address}{path}"}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        features = ["--enable-feature=native-histograms"] if kind == "native" else []
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with open(folder / "log", "w") as log:
            server = subprocess.Popen(
                ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address=127.0.0.1:{port}", *features], stderr=log)
        cls.children.append(server)
        for _ in range(200):
            time.sleep(0.1)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1).close()
                return f"http://127.0.0.1:{port}"
            except OSError:
                if server.poll() is not None:
                    break
        raise RuntimeError((folder / "log").read_text())

    @classmethod
    def tearDownClass(cls):
        for child in cls.children:
            child.terminate()
            child.wait()
        cls.folder.cleanup()

    def query(self, kind, expr):
        url = f"{self.servers[kind]}/api/v1/query?" + urllib.parse.urlencode({"query": expr})
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def wait_for(self, kind, expr):
        for _ in range(100):
            result = self.query(kind, expr)
            if result:
                return result
            time.sleep(0.2)
        self.fail(f"{kind}: nothing for {expr}")

    # What the simulated hosts have no numbers for.
    SILENT = {"Touched again A"}

    def test_every_query_of_the_dashboard_has_an_answer(self):
        for kind in self.servers:
            self.wait_for(kind, f"fleet:jemtrace_purge_duration_seconds:p99_{kind} > 0")
            for where, expr in queries():
                with self.subTest(f"{kind} {where}"):
                    result = self.query(kind, expr)
                    self.assertTrue(result or where in self.SILENT, expr)

    def test_every_rule_runs(self):
        for kind, server in self.servers.items():
            self.wait_for(kind, f"fleet:jemtrace_purge_duration_seconds:p99_{kind} > 0")
            with urllib.request.urlopen(f"{server}/api/v1/rules", timeout=10) as answer:
                groups = json.load(answer)["data"]["groups"]
            for rule in (rule for group in groups for rule in group["rules"]):
                self.assertEqual((rule.get("lastError"), rule["health"]), (None, "ok"), rule["name"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
