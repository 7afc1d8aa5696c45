#!/usr/bin/env python3
"""The DaemonSet is YAML of the right shape, has the service's rights and no more, and its parts agree.

usage: kubernetes_test.py SOURCE_DIR [JEMTRACE]
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

JEMTRACE = sys.argv[2] if len(sys.argv) > 2 else None
PACKAGING = pathlib.Path(sys.argv[1]) / "packaging"
DOCUMENTS = list(yaml.safe_load_all((PACKAGING / "kubernetes/daemonset.yaml").read_text()))
UNIT = (PACKAGING / "systemd/jemtrace.service").read_text()


def unit_capabilities(key):
    return {c.removeprefix("CAP_") for c in re.search(rf"^{key}=(.*)$", UNIT, re.M).group(1).split()}


class DaemonSet(unittest.TestCase):
    def setUp(self):
        (self.set,) = [d for d in DOCUMENTS if d["kind"] == "DaemonSet"]
        self.pod = self.set["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]

    def test_every_document_is_an_object_of_kubernetes(self):
        for document in DOCUMENTS:
            self.assertLessEqual({"apiVersion", "kind", "metadata"}, document.keys())
            self.assertRegex(document["metadata"]["name"], r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
        self.assertEqual(self.set["apiVersion"], "apps/v1")

    def test_selector_finds_the_pods(self):
        wanted = self.set["spec"]["selector"]["matchLabels"]
        self.assertLessEqual(wanted.items(), self.set["spec"]["template"]["metadata"]["labels"].items())

    def test_has_the_least_privileges(self):
        security = self.container["securityContext"]
        self.assertIs(security["privileged"], False)
        self.assertIs(security["allowPrivilegeEscalation"], False)
        self.assertIs(security["readOnlyRootFilesystem"], True)
        self.assertEqual(security["capabilities"]["drop"], ["ALL"])
        self.assertEqual(set(security["capabilities"]["add"]), unit_capabilities("AmbientCapabilities"))
        self.assertNotIn("SYS_ADMIN", security["capabilities"]["add"])
        self.assertIs(self.pod["hostPID"], True)
        self.assertFalse(self.pod.get("hostNetwork") or self.pod.get("hostIPC"))
        self.assertIs(self.pod["automountServiceAccountToken"], False)
        for volume in self.pod["volumes"]:
            if "hostPath" in volume:
                (mount,) = [m for m in self.container["volumeMounts"] if m["name"] == volume["name"]]
                self.assertIs(mount["readOnly"], True, volume["name"])

    def test_mounts_and_ports_have_their_other_half(self):
        volumes = {v["name"] for v in self.pod["volumes"]}
        self.assertEqual({m["name"] for m in self.container["volumeMounts"]}, volumes)
        ports = {p["name"] for p in self.container["ports"]}
        for probe in ("livenessProbe", "readinessProbe"):
            self.assertIn(self.container[probe]["httpGet"]["port"], ports)
        self.assertLessEqual({"requests", "limits"}, self.container["resources"].keys())

    @unittest.skipUnless(JEMTRACE and os.geteuid() == 0 and shutil.which("setpriv"), "no root")
    def test_its_root_without_capabilities_can_look_into_files(self):
        rights = "-all," + ",".join("+" + c.lower() for c in self.container["securityContext"]["capabilities"]["add"])
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                ["setpriv", f"--bounding-set={rights}", "--inh-caps=-all", JEMTRACE, "image", JEMTRACE],
                capture_output=True, text=True, env={**os.environ, "CACHE_DIRECTORY": cache})
        # There is no jemalloc in it: but that was looked for, by the child without rights.
        self.assertNotIn("without privileges", done.stderr)
        self.assertIn("jemalloc", done.stderr)

    def test_the_service_bounds_what_it_is_given(self):
        self.assertEqual(unit_capabilities("AmbientCapabilities"), unit_capabilities("CapabilityBoundingSet"))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
