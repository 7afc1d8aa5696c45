#!/usr/bin/python3 -B
"""Does a real Prometheus see in a fleet what is true of it?   ctest -L fleet

The fleet is simulated, its expositions are not: the code that makes them is that of jemtrace serve. The truth is all
purges of all hosts, pooled and sorted.
"""

import math
import subprocess
import unittest

import fleet
import openmetrics

HOSTS = 100
DURATION = "jemtrace_purge_duration_seconds"
BOUNDS = [2.0 ** e for e in (*range(-20, -5), -4, -2, 0, 2, 4)]


def bucket_of(seconds):
    """The classic bucket, (low, high], that holds it."""
    high = min(bound for bound in BOUNDS if seconds <= bound)
    return max([bound for bound in BOUNDS if bound < high], default=0.0), high


class Fleet(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hosts = fleet.SimulatedHosts("--hosts", HOSTS, "--purges", 3000)
        cls.addClassCleanup(cls.hosts.stop)
        cls.truth = cls.hosts.truth()
        cls.prometheus = fleet.Prometheus(fleet.scrape_config(
            {"classic": cls.hosts.url + "/sd/classic", "native": cls.hosts.url + "/sd"}, "2s"))
        cls.addClassCleanup(cls.prometheus.stop)
        fleet.wait_until("scrape of all hosts", lambda: cls.prometheus.value("sum(up)") == 2 * HOSTS)

    def test_the_merged_count_is_exact_over_classic_histograms(self):
        self.assertEqual(self.prometheus.value(f'sum({DURATION}_count{{job="classic"}})'), self.truth["count"])

    def test_the_merged_count_is_exact_over_native_histograms(self):
        self.assertEqual(self.prometheus.value(f'histogram_count(sum({DURATION}{{job="native"}}))'),
                         self.truth["count"])

    def test_the_sum_is_exact_but_for_rounding(self):
        for expression in (f'sum({DURATION}_sum{{job="classic"}})', f'histogram_sum(sum({DURATION}{{job="native"}}))'):
            self.assertTrue(math.isclose(self.prometheus.value(expression), self.truth["sum_ns"] / 1e9, rel_tol=1e-9))

    def test_quantiles_over_classic_histograms_are_in_the_bucket_of_the_truth(self):
        for q, key in ((0.5, "p50_ns"), (0.9, "p90_ns"), (0.99, "p99_ns"), (0.999, "p999_ns")):
            value = self.prometheus.value(f'histogram_quantile({q}, sum by (le) ({DURATION}_bucket{{job="classic"}}))')
            low, high = bucket_of(self.truth[key] / 1e9)
            print(f"classic {key}: {value * 1e6:.2f} us, truth {self.truth[key] / 1e3:.2f} us, "
                  f"bucket {low * 1e6:.2f} to {high * 1e6:.2f} us")
            self.assertGreater(value, low)
            self.assertLessEqual(value, high)

    def test_quantiles_over_native_histograms_are_within_5_percent(self):
        for q, key in ((0.5, "p50_ns"), (0.9, "p90_ns"), (0.99, "p99_ns"), (0.999, "p999_ns")):
            value = self.prometheus.value(f'histogram_quantile({q}, sum({DURATION}{{job="native"}}))')
            error = value / (self.truth[key] / 1e9) - 1
            print(f"native {key}: {value * 1e6:.2f} us, truth {self.truth[key] / 1e3:.2f} us, {100 * error:+.2f} %")
            self.assertLess(abs(error), 0.05)

    def test_no_scrape_has_samples_that_prometheus_refuses(self):
        self.assertNotIn("level=warn", self.prometheus.said())

    def test_exemplars_arrive(self):
        data = self.prometheus.ask("/api/v1/query_exemplars", query=DURATION, start=0, end=2 ** 33)
        labels = [one["labels"] for series in data for one in series["exemplars"]]
        self.assertGreater(len(labels), 0)
        self.assertEqual(set(labels[0]), {"pid", "tid", "arena"})


class Expositions(unittest.TestCase):
    def check_promtool(self, text):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))

    def check_host(self, url):
        text, headers = fleet.get(url)
        self.assertEqual(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        self.check_promtool(text)
        strict, headers = fleet.get(url, {"Accept": fleet.OPENMETRICS})
        self.assertEqual(headers["Content-Type"], "application/openmetrics-text; version=1.0.0; charset=utf-8")
        return openmetrics.parse(strict)

    def test_each_is_clean_and_strictly_openmetrics(self):
        with fleet.SimulatedHosts("--hosts", 3, "--rate", 1000) as hosts:
            for host in (0, 1, 2, 0):
                families = self.check_host(f"{hosts.url}/host/{host}/metrics")
                self.assertGreater(len(families[DURATION].samples), 100)
                self.assertTrue(any(sample.exemplar for sample in families[DURATION].samples))

    def test_hostile_names_make_valid_expositions(self):
        with fleet.SimulatedHosts("--hosts", 1, "--processes", 6, "--nasty") as hosts:
            families = self.check_host(hosts.url + "/host/0/metrics")
            names = {sample.labels["name"] for sample in families["jemtrace_rss_bytes"].samples}
            self.assertEqual(names, {'a"b\\x5cc\\x0ad', "\\xff\\xfe{}=,#", "\\xe2\\x82", " # EOF\\x0a", 'le="1"',
                                     "\\x1b[31m"})
            with fleet.Prometheus(fleet.scrape_config({"nasty": hosts.url + "/sd", "text": hosts.url + "/sd/classic"})) as prometheus:
                fleet.wait_until("scrape", lambda: prometheus.value("sum(up)") == 2)
                self.assertEqual({one["metric"]["name"] for one in prometheus.query("jemtrace_rss_bytes")}, names)

    def test_the_parser_is_strict(self):
        good = (b"# HELP a_seconds H\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\n"
                b'a_seconds{b="c"} 1\n# EOF\n')
        openmetrics.parse(good)
        for bad in (good[:-6], good + b"a 1\n", good.replace(b"gauge", b"counter"), good.replace(b"} 1", b"}  1"),
                    good.replace(b'"c"', b'"\xff"'), good.replace(b'"c"', b'"\\t"'), good.replace(b'"c"', b'"c'),
                    good.replace(b"# EOF", b'a_seconds{b="c"} 2\n# EOF'), good.replace(b"# UNIT a_seconds seconds", b"# UNIT a_seconds bytes"),
                    good.replace(b"b=", b"0b="), good.replace(b"\n#", b"\r\n#"), good.replace(b"} 1", b"} one")):
            with self.assertRaises((openmetrics.Malformed, UnicodeDecodeError), msg=bad):
                openmetrics.parse(bad)


if __name__ == "__main__":
    unittest.main()
