"""In namespaces of its own (unshare --net --mount): ends a host whose collector's name is being looked up, at a name
server that takes the question and says nothing for 150 s. Prints the exit status of the host."""

import fcntl
import os
import socket
import struct
import subprocess
import tempfile
from pathlib import Path

import fleet

SIOCSIFFLAGS, IFF_UP = 0x8914, 1

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, tempfile.TemporaryDirectory() as folder:
    fcntl.ioctl(server, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    server.bind(("127.0.0.1", 53))
    os.environ["RES_OPTIONS"] = "timeout:30 attempts:5"
    for path, text in (("/etc/resolv.conf", "nameserver 127.0.0.1\n"), ("/etc/nsswitch.conf", "hosts: dns\n")):
        if Path(path).exists():  # what is used without them is the same
            mine = Path(folder, Path(path).name)
            mine.write_text(text)
            subprocess.run(["mount", "--bind", mine, path], check=True)
    with fleet.SimulatedHosts("--hosts", 1, "--otlp", "http://collector.example:4318/v1/metrics") as hosts:
        server.recvfrom(4096)
        print(hosts.stop())
