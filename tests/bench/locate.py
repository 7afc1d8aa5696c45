#!/usr/bin/env python3
"""How long jemtrace takes to analyse an image, by `jemtrace image`: anew, from its cache, and from its cache after `touch`.

The images: Debian's stripped library, rustc and rustdoc of the Rust toolchain where it is installed, and a stripped
program of 100 MB of code, most of it other than jemalloc's, as large static programs are. Or those given as --images.
"""

import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
import images  # noqa: E402

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
ARCHIVE = Path("/usr/lib/x86_64-linux-gnu/libjemalloc_pic.a")

# Functions of 256 bytes with unwind information.
FILLER = """
.rept 400000
	.cfi_startproc
	.incbin "{body}"
	.cfi_endproc
.endr
.section .note.GNU-stack
"""


def function_body():
    """push %rbx, then what the search for jemalloc's functions has to look at: address loads and calls. Then ret."""
    code = b"\x53"
    while len(code) < 234:
        code += b"\x48\x8d\x3d" + struct.pack("<i", -len(code) - 7)  # lea of this function, %rdi
        code += b"\xe8" + struct.pack("<i", -len(code) - 5)  # call of it
        code += b"\x48\x8b\x73\x28\x48\x85\xc0\x74\x02"  # mov 0x28(%rbx), %rsi; test %rax, %rax; je
    return (code + b"\x5b\xc3").ljust(256, b"\xcc")


def large_program(folder):
    body, source = folder / "body", folder / "filler.s"
    body.write_bytes(function_body())
    source.write_text(FILLER.format(body=body))
    return images.strip(images.link_program(ARCHIVE, folder, source), folder)


def default_images(folder):
    programs = [toolchain / "bin" / name for toolchain in images.toolchains()[:1] for name in ("rustc", "rustdoc")]
    return [LIBRARY, *(program for program in programs if program.exists()), large_program(folder)]


def median_ms(command, rounds, before=lambda: None):
    took = []
    for _ in range(rounds + 1):
        before()
        begin = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.append((time.monotonic() - begin) * 1000)
    return statistics.median(took[1:])  # the first one reads the file from disk, and fills the cache


def measure(jemtrace, image, rounds, caches):
    command = [jemtrace, "image", "-f", "json", image]
    anew = median_ms([*command, "--rebuild"] if caches else command, rounds)
    row = [image.name, os.path.getsize(image) / 1e6, anew, median_ms(command, rounds) if caches else "-"]
    # The same content with another ctime: it has to be read to be known again. Only of files of ours.
    ours = caches and image.is_relative_to(tempfile.gettempdir())
    return [*row, median_ms(command, rounds, before=lambda: os.utime(image)) if ours else "-"]


def main():
    arguments = bench.parse_arguments(__doc__, as_root=False, rounds=10, images="")
    usage = subprocess.run([arguments.jemtrace, "image", "--help"], text=True, stdout=subprocess.PIPE, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="jemtrace-bench-") as folder:
        wanted = [Path(image) for image in arguments.images.split()] or default_images(Path(folder))
        rows = [measure(arguments.jemtrace, image, arguments.rounds, "--rebuild" in usage) for image in wanted]
    bench.print_table(["", "MB", "anew ms", "cached ms", "touched ms"], rows)


if __name__ == "__main__":
    main()
