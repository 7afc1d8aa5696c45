"""A strict parser of OpenMetrics 1.0 text, written from the specification: it shares nothing with what it judges.

Stricter than the specification where that is easy: families are not interleaved, each has HELP and TYPE, and the same
series comes once.
"""

import re

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
TIMESTAMP = re.compile(r"[0-9]+(?:\.[0-9]{1,9})?")
SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": ("",),
    "info": ("_info",),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
}


class Malformed(Exception):
    pass


def check(condition, text, line):
    if not condition:
        raise Malformed(f"{text}: {line!r}")


class Cursor:
    """A line, and how far it was read."""

    def __init__(self, line):
        self.line, self.at = line, 0

    def take(self, pattern, what):
        found = pattern.match(self.line, self.at)
        check(found, f"no {what} at {self.at}", self.line)
        self.at = found.end()
        return found.group()

    def expect(self, text):
        check(self.line.startswith(text, self.at), f"no {text!r} at {self.at}", self.line)
        self.at += len(text)

    def sees(self, text):
        return self.line.startswith(text, self.at)

    def done(self):
        return self.at == len(self.line)

    def quoted(self):
        self.expect('"')
        out = []
        while not self.sees('"'):
            check(not self.done(), "an open quote", self.line)
            char = self.line[self.at]
            self.at += 1
            if char == "\\":
                check(not self.done() and self.line[self.at] in '\\"n', "an unknown escape", self.line)
                char = {"n": "\n"}.get(self.line[self.at], self.line[self.at])
                self.at += 1
            out.append(char)
        self.expect('"')
        return "".join(out)

    def labels(self):
        labels = {}
        if not self.sees("{"):
            return labels
        self.expect("{")
        while not self.sees("}"):
            if labels:
                self.expect(",")
            name = self.take(LABEL, "label name")
            check(name not in labels, "a label twice", self.line)
            self.expect("=")
            labels[name] = self.quoted()
        self.expect("}")
        return labels

    def number(self):
        for special in ("+Inf", "-Inf", "NaN"):
            if self.sees(special):
                self.expect(special)
                return float(special)
        return float(self.take(NUMBER, "number"))


class Sample:
    def __init__(self, line):
        cursor = Cursor(line)
        self.line = line
        self.name = cursor.take(NAME, "metric name")
        self.labels = cursor.labels()
        cursor.expect(" ")
        self.value = cursor.number()
        self.exemplar = None
        if cursor.sees(" # "):
            cursor.expect(" # ")
            labels = cursor.labels()
            check(sum(len(k) + len(v) for k, v in labels.items()) <= 128, "an exemplar with too many letters", line)
            cursor.expect(" ")
            value = cursor.number()
            timestamp = None
            if cursor.sees(" "):
                cursor.expect(" ")
                timestamp = float(cursor.take(TIMESTAMP, "timestamp"))
            self.exemplar = (labels, value, timestamp)
        check(cursor.done(), "something is left over", line)

    def key(self, without=()):
        return tuple(sorted((k, v) for k, v in self.labels.items() if k not in without))


class Family:
    def __init__(self, name):
        self.name, self.type, self.unit, self.help = name, None, None, None
        self.samples = []

    def check(self):
        check(self.type in SUFFIXES, "a type that is not expected here", self.name)
        check(self.help, "no HELP", self.name)
        check(not self.unit or self.name.endswith("_" + self.unit), "the name does not end with the unit", self.name)
        check(self.samples, "a family without samples", self.name)
        seen = set()
        for sample in self.samples:
            check((sample.name, sample.key()) not in seen, "a series twice", sample.line)
            seen.add((sample.name, sample.key()))
            check(not sample.exemplar or self.type in ("histogram", "counter"), "an exemplar here", sample.line)
            if self.type == "counter":
                check(sample.value >= 0 and sample.value != float("inf"), "no value for a counter", sample.line)
            if self.type == "info":
                check(sample.value == 1, "an info is 1", sample.line)
        if self.type == "histogram":
            self.check_histograms()

    def check_histograms(self):
        closed, current, lines = set(), None, []
        for sample in self.samples + [None]:
            key = sample.key(without=("le",)) if sample else None
            if key != current:
                if current is not None:
                    check_histogram(self.name, lines)
                    closed.add(current)
                check(key not in closed, "samples of a metric are apart", self.name)
                current, lines = key, []
            lines.append(sample)


def check_histogram(name, samples):
    buckets = [s for s in samples if s.name == name + "_bucket"]
    one = {s.name: s.value for s in samples if s.name != name + "_bucket"}
    check(buckets, "no buckets", samples[0].line)
    below, count = float("-inf"), 0
    for sample in buckets:
        text = sample.labels.get("le")
        check(text is not None, "a bucket without le", sample.line)
        bound = float(text)
        canonical = "+Inf" if bound == float("inf") else repr(bound).replace("e-0", "e-0")
        check(text == canonical, f"le is not canonical ({canonical})", sample.line)
        check(bound > below, "le does not rise", sample.line)
        check(sample.value >= count and sample.value == int(sample.value), "a count falls", sample.line)
        if sample.exemplar:
            check(below < sample.exemplar[1] <= bound, "an exemplar of another bucket", sample.line)
        below, count = bound, sample.value
    check(below == float("inf"), "no +Inf", samples[0].line)
    check(one.get(name + "_count") == count, "_count is not that of +Inf", samples[0].line)
    check(one.get(name + "_sum", -1) >= 0, "no _sum", samples[0].line)


def parse(raw):
    """Families by name, out of the bytes of an exposition."""
    text = raw.decode("utf-8", errors="strict")
    check(text.endswith("# EOF\n"), "no # EOF at the end", text[-100:])
    check("\r" not in text and "\0" not in text, "a control character", "")
    lines = text[:-len("\n")].split("\n")
    families, current = {}, None
    for line in lines[:-1]:
        check(line, "an empty line", line)
        if line.startswith("#"):
            parts = line.split(" ", 3)
            check(len(parts) == 4 and parts[0] == "#" and parts[1] in ("HELP", "TYPE", "UNIT"), "no metadata", line)
            _, kind, name, value = parts
            check(NAME.fullmatch(name), "no metric name", line)
            if current is None or current.name != name:
                check(name not in families, "a family twice", line)
                current = families[name] = Family(name)
            check(not current.samples, "metadata behind samples", line)
            field = kind.lower()
            check(getattr(current, field) is None, f"{kind} twice", line)
            check("\\" not in value, "an escape in metadata", line)
            setattr(current, field, value)
            continue
        check(current is not None and current.type, "a sample without TYPE", line)
        sample = Sample(line)
        names = [current.name + suffix for suffix in SUFFIXES.get(current.type, ())]
        check(sample.name in names, f"not a sample of {current.name}", line)
        current.samples.append(sample)
    check(lines[-1] == "# EOF", "no # EOF", lines[-1])
    for family in families.values():
        family.check()
    return families
