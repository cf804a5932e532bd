"""Thin links between nodes and a server, for scripts/loose_nodes: delay, loss, a rate, and partitions.

Tun: every node and the server in a network namespace of its own, each with a TUN device; IP packets between them pass through this process, which
delays them, loses some and sends so many bits a second. Needs root. Relay: TCP on loopback, for who is not root; it cannot lose a packet of a
stream, so it holds the stream for one retransmission timeout instead. Veth: namespaces without a link's faults, whose counters count Ethernet frames."""
import fcntl
import heapq
import os
import random
import selectors
import socket
import struct
import subprocess
import threading
import time

RTO = 0.2  # seconds: Linux' smallest retransmission timeout
SEGMENT = 1448  # bytes of TCP in an Ethernet frame
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SERVER = 0  # its place; nodes are 1, 2, ..


class Shape:
    """Of each node's link: seconds one way, share of packets that are lost, bytes a second in each direction (0: without limit)."""

    def __init__(self, rtt_ms=0.0, loss=0.0, rate_mbit=0.0):
        self.delay, self.loss, self.rate = rtt_ms / 2000, loss, rate_mbit * 1e6 / 8


class Queue:
    """One direction of a link: when a packet that comes now arrives."""

    def __init__(self, shape):
        self.shape, self.free = shape, 0.0

    def due(self, size, held=0.0):
        now = time.monotonic()
        self.free = max(now, self.free) + (size / self.shape.rate if self.shape.rate else 0)
        return self.free + self.shape.delay + held


def ip(*words):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")


def why_no_namespaces():
    """Nothing, or the reason why there can be none."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    try:
        name = f"loose{os.getpid()}-try"
        ip("netns", "add", name)
        ip("netns", "del", name)
    except (RuntimeError, FileNotFoundError) as failure:
        return str(failure)
    return None


class Namespaces:
    """One for each place, removed by close()."""

    def __init__(self, count):
        self.spaces = []
        try:
            for place in range(count + 1):
                ip("netns", "add", f"loose{os.getpid()}-{place}")
                self.spaces.append(f"loose{os.getpid()}-{place}")
                # Its solicitations would be counted with the bytes of votes.
                subprocess.run(self.command(place, ["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; "
                                                                "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"]), capture_output=True)
                ip("-n", self.spaces[-1], "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def command(self, place, words):
        return ["ip", "netns", "exec", self.spaces[place], *words]

    def counter(self, place, name):
        """Bytes or packets that the node's interface counted: tx_bytes, rx_bytes, ..."""
        words = self.command(place, ["cat", f"/sys/class/net/{self.device(place)}/statistics/{name}"])
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    def close(self):
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        self.spaces = []


class Veth(Namespaces):
    def __init__(self, count):
        super().__init__(count)
        for place in range(1, count + 1):
            ip("link", "add", self.device(place), "netns", self.spaces[place], "type", "veth", "peer", "name", f"peer{place}", "netns",
               self.spaces[SERVER])
            for space, device, host in ((self.spaces[place], self.device(place), 2), (self.spaces[SERVER], f"peer{place}", 1)):
                ip("-n", space, "addr", "add", f"10.78.{place}.{host}/30", "dev", device)
                ip("-n", space, "link", "set", device, "up")

    def device(self, place):
        return f"veth{place}"

    def host(self, place):
        return f"10.78.{place}.1"


class Tun(Namespaces):
    def __init__(self, count, shape, seed, port):
        super().__init__(count)
        self.port, self.shape, self.random, self.cut_off = port, shape, random.Random(seed), set()
        self.files, self.sequence, self.lost, self.ends = [], 0, 0, False
        self.up = [Queue(shape) for _ in range(count + 1)]
        self.down = [Queue(shape) for _ in range(count + 1)]
        for place in range(count + 1):
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            self.files.append(file)
            fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", self.device(place).encode(), IFF_TUN | IFF_NO_PI))
            ip("link", "set", "dev", self.device(place), "netns", self.spaces[place])
            ip("-n", self.spaces[place], "addr", "add", f"10.77.0.{place + 1}/24", "dev", self.device(place))
            ip("-n", self.spaces[place], "link", "set", self.device(place), "up")
        self.thread = threading.Thread(target=self.forward, daemon=True)
        self.thread.start()

    def device(self, place):
        return f"lo{os.getpid() % 1000000}x{place}"

    def url(self, place):
        return f"nats://10.77.0.1:{self.port}"

    def cut(self, place, is_cut):
        (self.cut_off.add if is_cut else self.cut_off.discard)(place)

    def forward(self):
        waiting = selectors.DefaultSelector()
        for place, file in enumerate(self.files):
            waiting.register(file, selectors.EVENT_READ, place)
        due = []
        while not self.ends:
            for key, _ in waiting.select(min(0.1, max(0, due[0][0] - time.monotonic())) if due else 0.1):
                try:
                    self.take(os.read(key.fd, 65536), key.data, due)
                except BlockingIOError:
                    pass
            while due and due[0][0] <= time.monotonic():
                _, _, place, packet = heapq.heappop(due)
                try:
                    os.write(self.files[place], packet)
                except OSError:
                    self.lost += 1  # a full queue, as at any router

    def take(self, packet, source, due):
        if len(packet) < 20 or packet[0] >> 4 != 4 or packet[16:19] != bytes((10, 77, 0)):
            return
        target = packet[19] - 1
        node = source or target
        if target >= len(self.files) or (source and target) or node in self.cut_off or self.random.random() < self.shape.loss:
            self.lost += 1
            return
        queue = (self.up if source else self.down)[node]
        self.sequence += 1
        heapq.heappush(due, (queue.due(len(packet)), self.sequence, target, packet))

    def close(self):
        self.ends = True
        if hasattr(self, "thread"):
            self.thread.join()
        for file in self.files:
            os.close(file)
        self.files = []
        super().close()


class Relay:
    """A port on loopback for each node."""

    def __init__(self, count, shape, seed, port):
        self.port, self.shape, self.random, self.cut_off, self.ends = port, shape, random.Random(seed), set(), False
        self.listeners = [None]
        for place in range(1, count + 1):
            self.listeners.append(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=self.accept, args=(place,), daemon=True).start()

    def command(self, place, words):
        return words

    def url(self, place):
        return f"nats://127.0.0.1:{self.listeners[place].getsockname()[1]}"

    def cut(self, place, is_cut):
        (self.cut_off.add if is_cut else self.cut_off.discard)(place)

    def accept(self, place):
        while True:
            try:
                node, _ = self.listeners[place].accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                node.close()
                continue
            for end in (node, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target in ((node, server), (server, node)):
                threading.Thread(target=self.pipe, args=(place, source, target), daemon=True).start()

    def pipe(self, place, source, target):
        """What one side sends, later, on a thread of its own for each half: bytes wait in `sent` for their time."""
        sent, news = [], threading.Condition()
        queue = Queue(self.shape)

        def deliver():
            while True:
                with news:
                    while not sent:
                        news.wait()
                    due, data = sent.pop(0)
                # In order: what is held holds all behind it.
                time.sleep(max(0, due - time.monotonic()))
                while place in self.cut_off and not self.ends:
                    time.sleep(0.01)
                try:
                    if not data:
                        target.shutdown(socket.SHUT_WR)
                        return
                    target.sendall(data)
                except OSError:
                    return

        threading.Thread(target=deliver, daemon=True).start()
        data = b"-"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            segments = max(1, -(-len(data) // SEGMENT))
            held = RTO * sum(self.random.random() < self.shape.loss for _ in range(segments))
            with news:
                sent.append((queue.due(len(data), held), data))
                news.notify()

    def close(self):
        self.ends = True
        for listener in self.listeners[1:]:
            listener.close()
