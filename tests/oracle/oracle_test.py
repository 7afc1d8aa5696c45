#!/usr/bin/python3 -B
"""Is every function that jemtrace finds in a stripped image where that function really is?

    ctest -L oracle       JEMTRACE=/path/to/jemtrace ctest -L oracle    another one than this build's
    tests/oracle/oracle_test.py [Class[.test]]

What cannot be fetched is skipped, and a failure with JEMTRACE_LIVE=require or CI=true.

What is found must be right without exception, as a wrong address gives wrong numbers, in the worst case an int3 in the
middle of an instruction. What is not found costs only answers, so there the tests have lower bounds.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

from elftools.elf.elffile import ELFFile

import images
import truth

BUILT = os.environ.get("JEMTRACE_BUILT") or images.HERE.parents[1] / "build/userspace/jemtrace"
JEMTRACE = os.environ.get("JEMTRACE") or BUILT
REQUIRED = os.environ.get("JEMTRACE_LIVE") == "require" or os.environ.get("CI") == "true"
NOBODY = 65534

# What exact accounts need: the pass, the end of a cache, and the two ways from there to madvise.
EXACTNESS = {"pac_decay_to_limit", "arena_decay_to_limit", "ecache_evict", "extents_evict", "extent_dalloc_wrapper",
             "extent_record"}

# The functions around a purge whose number is asked for, with their names up to 5.2. Those that the mallctl tables and
# the table of hooks name directly are left out: they are always found.
COUNTED = EXACTNESS | {
    "arena_decay", "arena_decay_impl", "arena_do_deferred_work", "arena_i_decay", "background_thread_entry",
    "base_unmap", "decay_maybe_advance_epoch", "ecache_alloc", "ecache_alloc_grow", "ecache_dalloc",
    "ehooks_default_dalloc_impl", "ehooks_default_purge_forced_impl", "ehooks_default_purge_lazy_impl",
    "extent_alloc_wrapper", "extent_destroy_wrapper", "extent_purge_forced_wrapper", "extent_purge_lazy_wrapper",
    "os_pages_unmap", "pac_alloc_impl", "pac_dalloc_impl", "pac_decay_all", "pac_maybe_decay_purge",
    "pages_purge_forced", "pages_purge_lazy", "pages_unmap", "arena_maybe_decay", "extents_alloc", "extents_dalloc"}

# Another function that does a role's work and takes its arguments, so that a probe there is as good.
ALIASES = {
    # clang: the wrapper is a thunk of one jump, which ThinLTO copies into its callers; only the implementation runs.
    "extent_purge_lazy_wrapper": "extent_purge_lazy_impl",
    "extent_purge_forced_wrapper": "extent_purge_forced_impl",
}

# How many of COUNTED are found at least, by jemalloc's version and who compiled it.
LEAST = {"bullseye": 17, "bookworm": 23, "trixie": 23, "sid": 23, "rust": 17, "ripgrep": 23}

LEAST_OPTIONS = 18
# Of options whose variable has another name than they.
VARIABLES = {"zero_realloc": "opt_zero_realloc_action"}


def inspect(image, jemtrace=JEMTRACE, **options):
    """`jemtrace image` of a file, parsed."""
    done = subprocess.run([jemtrace, "image", "-f", "json", image], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        raise AssertionError(f"jemtrace image {image}: status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def addresses(image, report):
    """The roles of a report with their addresses instead of file offsets."""
    with open(image, "rb") as file:
        segments = [segment.header for segment in ELFFile(file).iter_segments("PT_LOAD") if segment["p_flags"] & 1]

    def address(offset):
        for segment in segments:
            if segment["p_offset"] <= offset < segment["p_offset"] + segment["p_filesz"]:
                return offset - segment["p_offset"] + segment["p_vaddr"]
        raise AssertionError(f"offset {offset:#x} is in no executable segment of {image}")

    return {role: address(found["offset"]) for role, found in report["roles"].items()}


def function_starts(image):
    """Of an image that has a .eh_frame_hdr: the addresses in its sorted table."""
    with open(image, "rb") as file:
        header = ELFFile(file).get_section_by_name(".eh_frame_hdr")
        data, begin = header.data(), header["sh_addr"]
    return {begin + offset for offset, _ in struct.iter_unpack("<ii", data[12:])}


class OracleTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="jemtrace-oracle-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def available(self, get, *arguments):
        """What `get` returns; without it the test is skipped, or fails where all is required."""
        try:
            return get(*arguments)
        except images.Unavailable as error:
            if REQUIRED:
                self.fail(error)
            self.skipTest(error)

    def expect_right(self, image, real):
        """Every role of the image is where it should be, and those that exactness needs are there, as are the variables
        that a reading needs. Returns all roles."""
        report = inspect(image)
        self.expect_structures(report["structures"], real)
        found = addresses(image, report)
        right = lambda role: real.of_role(role) | real.of_role(ALIASES.get(role, role))
        wrong = {role: f"{address:#x} instead of {sorted(map(hex, right(role)))}"
                 for role, address in found.items() if address not in right(role)}
        self.assertEqual({}, wrong)
        self.assertEqual(set(), {role for role in EXACTNESS - found.keys() if real.of_role(role)}, "not found")
        return found

    def expect_structures(self, structures, real):
        self.assertIsNotNone(structures)
        self.assertIn(int(structures["arenas"], 16), real.of_object("arenas"))
        wrong = {option: address for option, address in structures["options"].items()
                 if int(address, 16) not in real.of_object(VARIABLES.get(option, "opt_" + option))}
        self.assertEqual({}, wrong)
        self.assertGreaterEqual(len(structures["options"]), LEAST_OPTIONS)
        self.assertRegex(structures["found_by"] or "", "^known layout of 5[.][0-9]")

    def expect_located(self, image, real, least):
        """As expect_right, of a stripped image: at least `least` roles of COUNTED."""
        found = COUNTED & self.expect_right(image, real).keys()
        self.assertGreaterEqual(len(found), least, f"missing: {sorted(r for r in COUNTED - found if real.of_role(r))}")

    def expect_program_located(self, program, least):
        real = truth.from_symbols(program)
        self.expect_right(program, real)
        self.expect_located(images.strip(program, self.folder), real, least)


def checks(what):
    """A test of that name."""
    return lambda self: self.check(what)


class Truth(OracleTest):
    """The oracle itself: made from an archive, it says what the symbols of a library say that is linked from it."""

    def check(self, suite):
        archive = self.available(images.debian, suite, "libjemalloc_pic.a")
        library = images.link_library(archive, self.folder)
        real = truth.from_symbols(library)
        made = truth.from_archive(images.strip(library, self.folder), archive)
        self.assertGreater(made.placed_bytes, 0.999 * made.all_bytes)
        self.assertGreater(len(made.functions), 800)
        self.assertEqual({}, {name: places for name, places in made.functions.items()
                              if not places <= real.functions.get(name, set())})
        self.assertEqual({role: real.of_role(role) for role in COUNTED}, {role: made.of_role(role) for role in COUNTED})

    test_bullseye = checks("bullseye")
    test_sid = checks("sid")


class Shared(OracleTest):
    """Debian's libjemalloc.so.2, as users have it."""

    def check(self, suite):
        library = self.available(images.debian, suite, "libjemalloc.so.2")
        real = truth.from_archive(library, images.debian(suite, "libjemalloc_pic.a"))
        # Of another build than the library it would fit hardly anywhere.
        self.assertGreater(real.placed_bytes, 0.999 * real.all_bytes)
        self.expect_located(library, real, LEAST[suite])

    test_bullseye = checks("bullseye")
    test_bookworm = checks("bookworm")
    test_trixie = checks("trixie")
    test_sid = checks("sid")

    def test_unprivileged(self):
        """Locating needs no rights but to read the file."""
        library = self.available(images.debian, "bookworm", "libjemalloc.so.2")
        as_we_are = inspect(library)
        self.assertTrue(as_we_are["roles"])
        # Where everybody can read them; the build folder may be in somebody's home.
        self.folder.chmod(0o755)
        jemtrace = shutil.copy(JEMTRACE, self.folder)
        copy = shutil.copy(library, self.folder)
        nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        self.assertEqual(as_we_are["roles"], inspect(copy, jemtrace, cwd="/", **nobody)["roles"])


class Static(OracleTest):
    """Programs that hold a Debian release's jemalloc: position independent, not so, and with the API renamed."""

    def check(self, suite):
        pic = self.available(images.debian, suite, "libjemalloc_pic.a")
        with self.subTest("pie"):
            self.expect_program_located(images.link_program(pic, self.folder), LEAST[suite])
        with self.subTest("static"):
            archive = images.debian(suite, "libjemalloc.a")
            self.expect_program_located(images.link_program(archive, self.folder, "-static"), LEAST[suite])
        with self.subTest("prefix"):
            prefixed = images.with_prefix(pic, self.folder)
            self.expect_program_located(images.link_program(prefixed, self.folder, prefix="_rjem_"), LEAST[suite])

    test_bullseye = checks("bullseye")
    test_bookworm = checks("bookworm")
    test_trixie = checks("trixie")

    def test_versionless(self):
        """Built from sources without .git, jemalloc does not know its version."""
        program = images.link_program(self.available(images.debian, "bookworm", "libjemalloc.a"), self.folder, "-static")
        stripped = images.strip(program, self.folder)
        stripped.write_bytes(re.sub(rb"5\.3\.0-0-g[0-9a-f]{40}", b"0.0.0-0-g000000missing_version_try_git_fetch_tags",
                                    stripped.read_bytes()))
        self.assertIsNone(inspect(stripped)["version"])
        self.expect_located(stripped, truth.from_symbols(program), LEAST["bookworm"])


class Rust(OracleTest):
    """Programs of the Rust toolchain, where one is installed: clang, ThinLTO, profile-guided."""

    def check(self, name):
        checked = False
        for toolchain in images.toolchains():
            program = toolchain / "bin" / name
            if program.exists() and truth.from_symbols(program).of_role("mallctl"):
                checked = True
                with self.subTest(toolchain.name):
                    self.expect_program_located(program, LEAST["rust"])
        if not checked:
            self.skipTest(f"no Rust toolchain whose {name} has a jemalloc with symbols")

    test_rustc = checks("rustc")
    test_rustdoc = checks("rustdoc")

    def test_ripgrep(self):
        """Stripped by its makers, so nothing is known: only what must hold of any answer. Linked with musl, whose own
        functions have no unwind information."""
        try:
            program = images.fetch("ripgrep")
        except images.Unavailable as error:
            self.skipTest(error)  # not from apt, so never required
        found = addresses(program, inspect(program))
        self.assertLessEqual(set(found.values()), function_starts(program))
        self.assertEqual(len(found), len(set(found.values())), "two roles at one address")
        self.assertGreaterEqual(len(COUNTED & found.keys()), LEAST["ripgrep"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
