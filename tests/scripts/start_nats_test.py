"""What scripts/start_nats writes, refuses, starts and stops."""

import json
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class StartNats(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name, "nats")

    def run_script(self, *arguments):
        return subprocess.run([ROOT / "scripts/start_nats", "--folder", self.folder, *map(str, arguments)],
                              capture_output=True, text=True)

    def write(self, *arguments):
        done = self.run_script("--write-only", "--nodes", "a,b,c", "--packers", "a,b", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads((self.folder / "nats.conf").read_text())

    def refusal(self, *arguments):
        done = self.run_script("--write-only", *arguments)
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse(self.folder.exists(), "nothing is written")
        return done.stderr.splitlines()[0]

    def mode(self, name):
        return stat.S_IMODE((self.folder / name).stat().st_mode)

    def test_permissions_are_those_of_the_page(self):
        page = (ROOT / "docs/nats.md").read_text().split("## Permissions")[1].split("STREAM.UPDATE")[0]
        of_page = {"voter": {"publish": set(), "subscribe": set()}, "packer": {"publish": set(), "subscribe": set()}}
        kind, right = "voter", None
        for line in page.splitlines():
            kind = "packer" if line.startswith("A packer") else kind
            if cells := re.match(r"\| *(\w*) *\| (`.*) \|", line):
                right = cells[1] or right
                of_page[kind][right] |= set(re.findall(r"`([^`]+)`", cells[2]))
        users = {user["user"]: user for user in self.write()["authorization"]["users"]}
        self.assertEqual(set(users), {"operator", "a", "b", "c"})
        self.assertNotIn("permissions", users["operator"])
        for node in "abc":
            for right in ("publish", "subscribe"):
                expected = set(of_page["voter"][right]) | (of_page["packer"][right] if node in "ab" else set())
                allowed = users[node]["permissions"][right]
                self.assertEqual(set(allowed), {"allow"})
                self.assertEqual(set(allowed["allow"]), {subject.replace("NODE", node) for subject in expected})

    def test_secrets_are_their_owners(self):
        config = self.write("--tls")
        for name in ("nats.conf", "a.credentials", "operator.credentials", "ca.key", "server.key", "a.key"):
            self.assertEqual(self.mode(name), 0o600, name)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        passwords = [user["password"] for user in config["authorization"]["users"]]
        self.assertEqual(len(set(passwords)), 4)
        self.assertGreater(min(map(len, passwords)), 30)
        self.assertEqual((self.folder / "a.credentials").read_text(), f"a\n{passwords[1]}\n")

    def test_what_is_there_is_kept(self):
        first = self.write("--tls")
        certificate = (self.folder / "a.pem").read_bytes()
        done = self.run_script("--write-only", "--nodes", "a,d", "--packers", "d", "--tls")
        self.assertEqual(done.returncode, 0, done.stderr)
        second = json.loads((self.folder / "nats.conf").read_text())
        of = lambda config: {user["user"]: user["password"] for user in config["authorization"]["users"]}
        self.assertEqual(of(second)["a"], of(first)["a"])
        self.assertEqual(set(of(second)), {"operator", "a", "d"})
        self.assertEqual((self.folder / "a.pem").read_bytes(), certificate)

    def test_certificates_are_for_one_side_each(self):
        self.write("--tls", "--names", "host.example,10.1.2.3")
        def verify(name, purpose):
            return subprocess.run(["openssl", "verify", "-CAfile", "ca.pem", "-purpose", purpose, f"{name}.pem"],
                                  cwd=self.folder, capture_output=True).returncode == 0
        self.assertTrue(verify("a", "sslclient") and verify("server", "sslserver"))
        self.assertFalse(verify("a", "sslserver") or verify("server", "sslclient"))
        names = subprocess.run(["openssl", "x509", "-in", "server.pem", "-noout", "-ext", "subjectAltName"],
                               cwd=self.folder, capture_output=True, text=True).stdout
        for name in ("DNS:host.example", "IP Address:10.1.2.3", "IP Address:127.0.0.1", "DNS:localhost"):
            self.assertIn(name, names)

    def test_faults_are_told_before_anything_is_written(self):
        self.assertEqual(self.refusal("--nodes", "a", "--packers", "a", "--listen", "0.0.0.0"),
                         "start_nats: 0.0.0.0 can be reached from outside, and passwords would travel in the clear")
        self.assertEqual(self.refusal("--nodes", "a", "--packers", "a", "--listen", "host.example"),
                         "start_nats: host.example can be reached from outside, and passwords would travel in the clear")
        self.assertEqual(self.refusal("--nodes", "a.b", "--packers", "a.b"),
                         'start_nats: "a.b" cannot be the name of a node')
        self.assertEqual(self.refusal("--nodes", "a,operator", "--packers", "a"),
                         'start_nats: "operator" cannot be the name of a node')
        self.assertEqual(self.refusal("--nodes", "a,a", "--packers", "a"), "start_nats: --nodes names one twice")
        self.assertEqual(self.refusal("--nodes", "a", "--packers", "b"),
                         'start_nats: --packers names "b", which --nodes does not')
        self.assertEqual(self.refusal("--nodes", "a"), "start_nats: no node may write records")

    @unittest.skipUnless(shutil.which("nats-server"), "nats-server is not there")
    def test_a_server_starts_and_stops_and_starts_again(self):
        port = free_port()
        started = self.run_script("--nodes", "a", "--packers", "a", "--port", port)
        self.assertEqual(started.returncode, 0, started.stderr)
        try:
            self.assertIn(f"nats://127.0.0.1:{port} answers", started.stdout)
            self.assertIn("runs already", self.run_script().stderr)
        finally:
            self.assertEqual(self.run_script("--stop").returncode, 0)
        self.assertIn("runs", self.run_script("--stop").stderr)
        self.assertEqual(self.run_script().returncode, 0)
        self.assertEqual(self.run_script("--stop").returncode, 0)


unittest.main()
