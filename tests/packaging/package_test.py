#!/usr/bin/env python3
"""The Debian package: builds, has what it should, lintian is content, the unit verifies, the manual page is one.

usage: package_test.py SOURCE_DIR BUILD_DIR
"""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])

# What a package from the sources' own distribution would have and this one cannot.
SUPPRESSED = {
    "initial-upload-closes-no-bugs": "no bug asked for it",
}


def run(*command, **options):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, **options)


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        run("cmake", "--build", BUILD, "--target", "jemtrace", "manual", "changelog", check=True)
        made = run("cpack", "-G", "DEB", "-B", cls.folder.name, cwd=BUILD)
        if made.returncode != 0:
            raise RuntimeError(made.stdout + made.stderr)
        (cls.deb,) = pathlib.Path(cls.folder.name).glob("*.deb")
        cls.root = pathlib.Path(cls.folder.name) / "root"
        run("dpkg-deb", "-R", cls.deb, cls.root, check=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_has_program_manual_unit_and_completions(self):
        self.assertRegex(self.deb.name, r"^jemtrace_\d+\.\d+\.\d+-1_[a-z0-9]+\.deb$")
        for path in ("usr/sbin/jemtrace", "usr/share/man/man8/jemtrace.8.gz", "usr/lib/systemd/system/jemtrace.service",
                     "usr/lib/systemd/system/jemtrace.socket",
                     "usr/share/bash-completion/completions/jemtrace", "usr/share/zsh/vendor-completions/_jemtrace",
                     "usr/share/fish/vendor_completions.d/jemtrace.fish", "usr/share/doc/jemtrace/copyright",
                     "usr/share/doc/jemtrace/changelog.Debian.gz", "usr/share/jemtrace/rules.yml",
                     "usr/share/jemtrace/jemtrace.json"):
            self.assertTrue((self.root / path).is_file(), path)

    def test_program_runs_and_is_stripped(self):
        program = self.root / "usr/sbin/jemtrace"
        self.assertRegex(run(program, "--version").stdout, r"^jemtrace \d")
        self.assertNotIn(".debug_info", run("readelf", "-SW", program).stdout)
        self.assertLess(program.stat().st_size, 16 << 20)

    def test_depends_on_the_libraries_it_needs(self):
        depends = run("dpkg-deb", "-f", self.deb, "Depends").stdout
        for library in ("libbpf1", "libc6", "libelf1", "libzydis4.0"):
            self.assertRegex(depends, rf"\b{re.escape(library)}\b")

    def test_changelog_names_this_version(self):
        version = run("dpkg-deb", "-f", self.deb, "Version").stdout.strip()
        self.assertIn(f"jemtrace ({version})", (SOURCE / "packaging/debian/changelog").read_text())

    def test_only_root_may_write_to_it(self):
        listing = run("dpkg-deb", "-c", self.deb, check=True).stdout
        for line in listing.splitlines():
            self.assertIn(" root/root ", line)
            self.assertNotRegex(line[:10], r"^.{5}w|^.{8}w|s", line)

    @unittest.skipUnless(shutil.which("lintian"), "no lintian")
    def test_lintian_is_content(self):
        checked = run("lintian", "--allow-root", "--fail-on", "error,warning",
                      "--suppress-tags", ",".join(SUPPRESSED), self.deb)
        self.assertEqual((checked.stdout, checked.returncode), ("", 0))

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze")
    def test_unit_verifies_and_is_hardened(self):
        unit = self.root / "usr/lib/systemd/system/jemtrace.service"
        # /usr/sbin/jemtrace need not be installed here.
        text = unit.read_text().replace("/usr/sbin/jemtrace", str(self.root / "usr/sbin/jemtrace"))
        copy = pathlib.Path(self.folder.name) / "jemtrace.service"
        copy.write_text(text)
        port = pathlib.Path(self.folder.name) / "jemtrace.socket"
        port.write_text(unit.with_suffix(".socket").read_text())
        verified = run("systemd-analyze", "verify", "--man=no", copy, port)
        self.assertEqual((verified.returncode, verified.stdout + verified.stderr), (0, ""))
        # 100 times the exposure: 10 for a unit that forbids nothing, 0 for one that forbids all.
        secured = run("systemd-analyze", "security", "--offline=true", "--threshold=30", copy)
        self.assertEqual(secured.returncode, 0, secured.stdout[-400:])

    def test_manual_names_every_option(self):
        names = set(re.findall(r"\*--[a-z][a-z-]*", (SOURCE / "docs/jemtrace.8.scd").read_text()))
        program = self.root / "usr/sbin/jemtrace"
        help_text = run(program, "--help").stdout
        commands = re.findall(r"^  ([a-z][a-z-]*) ", help_text.split("Subcommands:")[1].split("\n\n")[0], re.M)
        for command in [(), *((c,) for c in commands)]:
            for option in re.findall(r"(--[a-z][a-z-]*)", " ".join(
                    re.findall(r"^  (-\S+)", run(program, *command, "--help").stdout, re.M))):
                if option not in ("--help", "--version"):
                    self.assertIn(f"*{option}", names, f"{command} {option}")

    def test_maintainer_scripts_parse_and_survive_a_host_without_systemd(self):
        for name in ("postinst", "prerm", "postrm"):
            script = self.root / "DEBIAN" / name
            self.assertTrue(script.stat().st_mode & stat.S_IXUSR)
            self.assertEqual(run("sh", "-n", script).stderr, "")
        if not os.path.isdir("/run/systemd/system"):
            for command in (("postinst", "configure"), ("prerm", "remove"), ("postrm", "remove")):
                self.assertEqual(run("sh", self.root / "DEBIAN" / command[0], command[1]).returncode, 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
