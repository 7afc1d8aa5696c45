#!/usr/bin/env python3
"""Each shell completes every command of jemtrace, and every option of each command.

usage: completions_test.py SOURCE_DIR JEMTRACE
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

FOLDER = pathlib.Path(sys.argv[1]) / "packaging/completions"
JEMTRACE = pathlib.Path(sys.argv[2]).resolve()
ENVIRONMENT = {**os.environ, "PATH": f"{JEMTRACE.parent}:{os.environ['PATH']}"}


def helped(*command):
    return subprocess.run([JEMTRACE, *command, "--help"], capture_output=True, text=True, check=True).stdout


COMMANDS = re.findall(r"^  ([a-z][a-z-]*) ", helped().split("Subcommands:")[1].split("\n\n")[0], re.M)


def options(*command):
    lines = re.findall(r"^  (-\S+)", helped(*command), re.M)
    return {name for line in lines for name in line.split(",")}


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=30)


def bash(*words):
    script = f"""source {FOLDER}/jemtrace.bash
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _jemtrace; printf '%s\\n' "${{COMPREPLY[@]}}" """
    return run("bash", "--norc", "-c", script, "bash", "jemtrace", *words)


def zsh(*words):
    # What the completion system would be told.
    script = f"""
        _describe() {{ [[ $1 == -o ]] && shift; print -l -- ${{(P)2}}; }}
        compadd() {{ print -l -- $@; }}; _files() {{ print FILES; }}; _normal() {{ print NORMAL $words; }}
        words=("$@"); CURRENT=$#; source {FOLDER}/_jemtrace"""
    done = run("zsh", "-f", "-c", script, "zsh", "jemtrace", *words)
    done.stdout = "\n".join(line.split(":")[0] for line in done.stdout.splitlines())
    return done


def fish(*words):
    line = "jemtrace " + " ".join(words)
    done = run("fish", "--no-config", "-c", f"source {FOLDER}/jemtrace.fish; complete -C '{line}'")
    done.stdout = "\n".join(line.split("\t")[0] for line in done.stdout.splitlines())
    return done


SHELLS = [shell for shell in (bash, zsh, fish) if shutil.which(shell.__name__)]


class Completion(unittest.TestCase):
    def words(self, done):
        self.assertEqual(done.stderr, "", done.args[0])
        return set(done.stdout.split("\n")) - {""}

    def test_offers_every_command(self):
        self.assertIn("list", COMMANDS)
        for complete in SHELLS:
            self.assertEqual(self.words(complete("")) & set(COMMANDS), set(COMMANDS))

    def test_offers_every_option_of_every_command(self):
        self.assertIn("--arenas", options("stats"))
        for complete in SHELLS:
            for command in [(), *((c,) for c in COMMANDS)]:
                wanted = {o for o in options(*command) if o.startswith("--")}
                got = self.words(complete(*command, "--"))
                self.assertEqual(wanted - got, set(), command)
                self.assertNotIn("--arenas", got - options(*command))

    def test_offers_the_values_of_format(self):
        for complete in SHELLS:
            self.assertEqual(self.words(complete("-f", "")), {"text", "json"})


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
