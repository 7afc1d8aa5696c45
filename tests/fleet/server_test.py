#!/usr/bin/python3 -B
"""Can those who are slow, many, or speak nonsense hurt the server, or who else is served?   ctest -L fleet

The server is that of jemtrace serve, with simulated hosts behind it: no root, no BPF.
"""

import os
import random
import selectors
import socket
import time
import unittest
import urllib.error

import fleet

REQUEST = b"GET /host/0/metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Served(unittest.TestCase):
    """One server for all tests: what one of them breaks, the next one notices."""

    @classmethod
    def setUpClass(cls):
        cls.server = fleet.SimulatedHosts("--hosts", 1, "--processes", 50, "--purges", 20000, "--connections", 512)
        cls.addClassCleanup(cls.server.stop)

    def connect(self):
        connection = socket.create_connection((self.server.host, self.server.port), timeout=10)
        self.addCleanup(connection.close)
        return connection

    def answer(self, request):
        """All that comes back until the server closes, or stays silent for a second."""
        connection = self.connect()
        connection.settimeout(1)
        answer = b""
        try:
            connection.sendall(request)
            while chunk := connection.recv(65536):
                answer += chunk
        except (socket.timeout, ConnectionError):
            pass
        return answer

    def status(self, request):
        answer = self.answer(request)
        return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else None

    def scrape_seconds(self):
        begin = time.monotonic()
        body, _ = fleet.get(self.server.url + "/host/0/metrics")
        self.assertTrue(body.startswith(b"# HELP"))
        return time.monotonic() - begin

    def assert_served(self, limit=1):
        for _ in range(3):
            self.assertLess(self.scrape_seconds(), limit)

    def test_malformed_requests_are_refused(self):
        host = b"Host: x\r\n"
        for request, status in (
                (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
                (b"GET /\r\n\r\n", 400), (b"GET / HTTP/2.0\r\n" + host + b"\r\n", 505),
                (b"GET / FTP/1.1\r\n" + host + b"\r\n", 400), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 x", 400),
                (b"G\0T / HTTP/1.1\r\n" + host + b"\r\n", 400), (b"GET /\x01 HTTP/1.1\r\n" + host + b"\r\n", 400),
                (b"GET / HTTP/1.1\r\n" + host + b"A: b\r\n c\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n" + host + b"nonsense\r\n\r\n", 400),
                (b"GET / HTTP/1.1\r\n" + host + b"A : b\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n" + host + host + b"\r\n", 400),
                (b"GET / HTTP/1.1\r\n" + host + b"A: \x00\r\n\r\n", 400),
                (b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 9\r\n\r\n123456789", 413),
                (b"GET / HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
                (b"GET / HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n", 413),
                (b"DELETE / HTTP/1.1\r\n" + host + b"\r\n", 405), (b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\n", 400),
                (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n" + host + b"\r\n", 414),
                (b"GET / HTTP/1.1\r\n" + host + b"A: b\r\n" * 200 + b"\r\n", 431),
                (b"GET / HTTP/1.1\r\n" + host + b"A: " + b"b" * 20000, 431)):
            self.assertEqual(self.status(request), status, request[:80])
        self.assert_served()

    def test_noise_is_refused_or_ignored(self):
        noise = random.Random(1)
        for _ in range(50):
            request = noise.randbytes(noise.randrange(1, 300)) + b"\r\n\r\n"
            self.assertIn(self.status(request), (400, 405, 413, 431, 505, None), request)
        for _ in range(200):  # one byte of a good one is another
            request = bytearray(REQUEST)
            request[noise.randrange(len(request))] = noise.randrange(256)
            connection = self.connect()
            connection.sendall(request)
            connection.close()
        self.assert_served()

    def test_paths_lead_nowhere_else(self):
        for path in (b"/../../etc/passwd", b"/host/0/../../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"//etc/passwd",
                     b"/host/-1/metrics", b"/host/99999999999999999999/metrics", b"/host/0/metrics/..", b"/host/0/metrics%00"):
            answer = self.answer(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 404 "), path)
            self.assertNotIn(b"root:", answer)

    def test_head_has_no_body(self):
        answer = self.answer(b"HEAD /host/0/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "))
        self.assertTrue(answer.endswith(b"\r\n\r\n"))
        self.assertGreater(int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]), 1000)

    def test_one_connection_takes_many_requests(self):
        answer = self.answer(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 9 + b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertEqual(answer.count(b"HTTP/1.1 404 "), 10)

    def test_slow_requests_keep_nobody_waiting_and_are_given_up(self):
        slow = [self.connect() for _ in range(300)]
        for connection in slow:
            connection.sendall(b"GET /host/0/metrics HTTP/1.1\r\nHo")
        begin = time.monotonic()
        slowest = 0
        while time.monotonic() - begin < 6:
            for connection in slow:
                try:
                    connection.send(b"s")
                except OSError:
                    pass
            slowest = max(slowest, self.scrape_seconds())
        self.assertLess(slowest, 1)
        closed = 0
        for connection in slow:
            connection.settimeout(0.01)
            try:
                closed += connection.recv(1) == b""
            except ConnectionError:
                closed += 1
            except socket.timeout:
                pass
        self.assertEqual(closed, len(slow))

    def test_a_thousand_connections_keep_nobody_out(self):
        idle = [self.connect() for _ in range(1000)]
        self.assert_served()
        # Of those that stay the newest do: they can still ask.
        idle[-1].sendall(REQUEST)
        self.assertTrue(idle[-1].recv(100).startswith(b"HTTP/1.1 200 "))

    def test_a_thousand_who_ask_at_once_are_all_answered(self):
        selector = selectors.DefaultSelector()
        answers = {}
        begin = time.monotonic()
        for _ in range(4):  # 250 at a time
            connections = [self.connect() for _ in range(250)]
            for connection in connections:
                connection.sendall(b"GET /truth HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answers[connection] = b""
            for connection in connections:
                while chunk := connection.recv(65536):
                    answers[connection] += chunk
        self.assertEqual(sum(one.startswith(b"HTTP/1.1 200 ") for one in answers.values()), 1000)
        print(f"1000 answers in {time.monotonic() - begin:.2f} s")
        selector.close()

    def test_those_who_do_not_read_cost_no_memory(self):
        before = self.server.rss_bytes()
        for _ in range(200):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((self.server.host, self.server.port))
            self.addCleanup(connection.close)
            connection.sendall(REQUEST)
        self.assert_served(2)
        size = len(fleet.get(self.server.url + "/host/0/metrics")[0])
        self.assertGreater(size, 500_000)
        grown = self.server.rss_bytes() - before
        print(f"200 who do not read: {grown / 1e6:.1f} MB more, a response has {size / 1e6:.1f} MB")
        self.assertLess(grown, 40 * size)


if __name__ == "__main__":
    unittest.main()
