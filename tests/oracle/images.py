"""The images of the tests: fetched, linked, stripped."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


class Unavailable(Exception):
    """An image cannot be had on this machine. Its text says why."""


def run(*command, **options):
    command = [str(word) for word in command]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout


def fetch(what):
    """The path that tests/oracle/fetch prints."""
    done = subprocess.run([HERE / "fetch", what], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise Unavailable(done.stderr.strip())
    return Path(done.stdout.strip())


def debian(suite, name):
    """A file of a suite's libjemalloc2 or libjemalloc-dev."""
    return fetch(suite) / "usr/lib/x86_64-linux-gnu" / name


def toolchains():
    """Folders of the Rust toolchains of rustup."""
    return sorted((Path(os.environ.get("RUSTUP_HOME", Path.home() / ".rustup")) / "toolchains").glob("*"))


def strip(path, folder):
    stripped = folder / (path.name + ".stripped")
    run("strip", "-s", "-o", stripped, path)
    return stripped


def link_program(archive, folder, *options, prefix=""):
    """tests/oracle/program.c with the jemalloc of an archive."""
    program = folder / "program"
    run("gcc", "-O2", f"-DPREFIX={prefix}", *options, "-o", program, HERE / "program.c", archive, "-lpthread", "-ldl",
        "-lm")
    return program


def link_library(archive, folder):
    """A libjemalloc.so that is not stripped, of the objects that Debian's is made of."""
    library = folder / "libjemalloc.so"
    run("gcc", "-shared", "-o", library, "-Wl,--whole-archive", archive, "-Wl,--no-whole-archive")
    return library


def with_prefix(archive, folder):
    """The archive as Rust's jemalloc-sys builds it: _rjem_malloc, _rjem_je_arena_decay."""
    names = {line.split()[0] for line in run("nm", "--defined-only", "--extern-only", "--format=posix", "--quiet",
                                             archive).splitlines() if not line.endswith(":")}
    renamed = folder / "renamed"
    # C++'s operators stay: their names are not jemalloc's to choose.
    renamed.write_text("".join(f"{name} _rjem_{name}\n" for name in sorted(names) if not name.startswith("_Z")))
    result = folder / "libprefixed.a"
    run("objcopy", f"--redefine-syms={renamed}", archive, result)
    return result
