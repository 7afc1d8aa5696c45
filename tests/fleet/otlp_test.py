#!/usr/bin/python3 -B
"""Does an OpenTelemetry collector get all, once, also when it was away?   ctest -L fleet"""

import json
import math
import os
import socket
import subprocess
import sys
import unittest

import fleet
from fleet import HERE
from otlp import HOLD, Collector, unknown_fields

DURATION = "jemtrace_purge_duration"


def pushed(collector_url, *arguments):
    return fleet.SimulatedHosts("--hosts", 1, "--otlp", collector_url, "--otlp-interval", 200, *arguments)


def points_of(metrics):
    return metrics[DURATION].exponential_histogram.data_points


def counted(points):
    return sum(point.count for point in points)


def quantile_seconds(points, q):
    """The middle of the bucket that holds it."""
    counts = {}
    for point in points:
        for i, count in enumerate(point.positive.bucket_counts):
            counts[point.positive.offset + i] = counts.get(point.positive.offset + i, 0) + count
    rank, below = math.ceil(q * counted(points)), sum(point.zero_count for point in points)
    for index in sorted(counts):
        below += counts[index]
        if below >= rank:
            return 2 ** ((index + 0.5) / 8)
    return 0


class WithACollector(unittest.TestCase):
    def finish(self, hosts):
        hosts.stop()
        return json.loads(hosts.said().splitlines()[-2])  # the truth is behind it

    def test_cumulative_points_say_all_since_the_start(self):
        with Collector() as collector, pushed(collector.url) as hosts:
            fleet.wait_until("three pushes", lambda: len(collector.requests) >= 3)
            truth = hosts.truth()
            metrics = collector.metrics()
            points = points_of(metrics)
            self.assertEqual(metrics[DURATION].unit, "s")
            self.assertEqual(metrics[DURATION].exponential_histogram.aggregation_temporality, 2)
            self.assertEqual(counted(points), truth["count"])
            self.assertTrue(math.isclose(sum(point.sum for point in points), truth["sum_ns"] / 1e9, rel_tol=1e-9))
            for point in points:
                self.assertEqual(point.scale, 3)
                self.assertEqual(sum(point.positive.bucket_counts) + point.zero_count, point.count)
                self.assertLessEqual(point.min, point.max)
                self.assertGreater(point.positive.bucket_counts[0] * point.positive.bucket_counts[-1], 0)
                # OpenTelemetry's bucket i is (2^(i/8), 2^((i+1)/8)].
                last = point.positive.offset + len(point.positive.bucket_counts) - 1
                self.assertTrue(2 ** (last / 8) < point.max <= 2 ** ((last + 1) / 8))
            for q, key in ((0.5, "p50_ns"), (0.99, "p99_ns")):
                self.assertLess(abs(quantile_seconds(points, q) / (truth[key] / 1e9) - 1), 0.05)
            starts = [{point.start_time_unix_nano for point in points_of(collector.metrics(i))} for i in range(3)]
            self.assertEqual(starts[0], starts[2])
            self.assertLess(max(starts[2]), points[0].time_unix_nano)
            self.assertTrue(metrics["jemtrace_purged"].sum.is_monotonic)
            self.assertEqual(metrics["jemtrace_purged"].unit, "By")
            self.assertEqual(metrics["jemtrace_rss"].gauge.data_points[0].as_double, 900 << 20)
            resource = {one.key: one.value.string_value for one in collector.requests[0].resource_metrics[0].resource.attributes}
            self.assertEqual(resource, {"service.name": "jemtrace", "service.version": "simulated", "host.name": "host-0"})
            self.assertEqual(unknown_fields(collector.requests[0]), 0)

    def test_deltas_add_up(self):
        with Collector() as collector, pushed(collector.url, "--otlp-delta", "--rate", 2000) as hosts:
            fleet.wait_until("five pushes", lambda: len(collector.requests) >= 5)
            hosts.stop()
            truth = json.loads(hosts.said().splitlines()[-1])
            total = sum(counted(points_of(collector.metrics(i))) for i in range(len(collector.requests)))
            # What came after the last push is not told.
            self.assertLessEqual(total, truth["count"])
            self.assertGreater(total, 2000 + 500)
            last = points_of(collector.metrics(2))[0]
            before = points_of(collector.metrics(1))[0]
            self.assertEqual(last.start_time_unix_nano, before.time_unix_nano)
            self.assertEqual(collector.metrics(1)[DURATION].exponential_histogram.aggregation_temporality, 1)
            self.assertEqual(collector.metrics(1)["jemtrace_purged"].sum.aggregation_temporality, 1)

    def test_what_happened_while_it_was_away_is_in_the_next_delta(self):
        port = fleet.free_port()
        with pushed(f"http://127.0.0.1:{port}/v1/metrics", "--otlp-delta", "--purges", 5000) as hosts:
            hosts.wait_for("cannot push to 127.0.0.1")
            with Collector(port) as collector:
                fleet.wait_until("a push", lambda: collector.requests)
                self.assertEqual(counted(points_of(collector.metrics(0))), 5000)
                counts = self.finish(hosts)
                self.assertGreater(counts["failed"], 0)
                self.assertEqual(counts["dropped"], 0)
            self.assertEqual(hosts.said().count("cannot push"), 1)  # not once each time

    def test_a_busy_collector_is_asked_again_and_one_that_refuses_is_not(self):
        script = [(503, {"Retry-After": "1"}), None, 200, 400, 200, 200, HOLD]
        with Collector(script=script) as collector, pushed(collector.url) as hosts:
            fleet.wait_until("the one that is held", lambda: len(collector.requests) >= 4)
            counts = self.finish(hosts)
            self.assertEqual(len(collector.requests), 4)
            self.assertEqual(counts["sent"], 3)
            self.assertEqual(counts["failed"], 3)
            self.assertEqual(counts["dropped"], 1)  # the 400
            # The end did not wait for an answer to the last one: it is no failure, and not sent for all one knows.
            self.assertGreaterEqual(counts["queued"], 1)
            self.assertIn(f"did not confirm the last exports ({counts['queued']})", hosts.said())

    def test_one_that_never_answers_keeps_nobody_from_ending(self):
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            with pushed(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/metrics") as hosts:
                fleet.wait_until("a scrape", lambda: fleet.get(hosts.url + "/host/0/metrics"))
                deaf.accept()[0].detach()
                self.assertEqual(self.finish(hosts)["sent"], 0)
                self.assertEqual(hosts.process.returncode, 0)

    @unittest.skipUnless(os.geteuid() == 0, "namespaces of its own take root")
    def test_a_name_server_that_never_answers_keeps_nobody_from_ending(self):
        done = subprocess.run(["unshare", "--net", "--mount", sys.executable, "-B", HERE / "deaf_name_server.py"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, "0\n"), done.stderr)


if __name__ == "__main__":
    unittest.main()
