"""What /dig, /whois and /openssl talk to in the tests: name servers, whois servers, TLS servers.

The codec here knows nothing of slackbot.py's, so that the two can disagree."""

import contextlib
import datetime
import gc
import io
import itertools
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time

CLOSED = "close"  # what a server does instead of sending bytes
RESET = "reset"
SILENCE = "silence"
PATIENCE = 20  # seconds after which the worst of servers ends by itself, so that no test hangs
TOOLS = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where Debian puts name servers


def tool(name):
    """The path of a program, or None."""
    return shutil.which(name, path=TOOLS)


def both_free(tries=50):
    """A UDP and a TCP socket on the same free port of 127.0.0.1."""
    for _ in range(tries):
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
        else:
            return udp, tcp
    raise OSError("no port is free for both")


class Server:
    """A TCP server on a free port; a context manager. A subclass talks in `serve(peer)`.

    `peers` counts who connected; `closing` is set when it is time to go."""

    def __init__(self, host="127.0.0.1"):
        self.host = host

    def __enter__(self):
        self.peers, self.closing, self.open = 0, threading.Event(), set()
        self.listener = self.listen()
        self.port = self.listener.getsockname()[1]
        self.name = f"{self.host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def listen(self):
        return socket.create_server((self.host, 0))

    def _accept(self):
        while not self.closing.is_set():
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            self.peers += 1
            self.open.add(peer)
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer):
        with peer, contextlib.suppress(OSError):
            peer.settimeout(PATIENCE)
            self.serve(peer)
        self.open.discard(peer)

    def __exit__(self, *exception):
        self.closing.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # which wakes accept up
        self.listener.close()
        for peer in [*self.open]:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def act(self, peer, how):
        """Do what *how* says: bytes are sent, words are done, a function is called."""
        if how == SILENCE:
            self.closing.wait(PATIENCE)
        elif how == RESET:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif callable(how):
            how(self, peer)
        elif how != CLOSED:
            peer.sendall(how)


def drip(data, pause=0.02):
    """A way of a server: *data* byte by byte, and over again, for as long as somebody reads."""
    def act(server, peer):
        until = time.monotonic() + PATIENCE
        for byte in itertools.cycle(data):
            peer.sendall(bytes([byte]))
            if server.closing.wait(pause) or time.monotonic() > until:
                return
    return act


def endless(data):
    """A way of a server: *data* again and again, as fast as it goes; `server.sent` counts."""
    def act(server, peer):
        server.sent, until = 0, time.monotonic() + PATIENCE
        while not server.closing.is_set() and time.monotonic() < until:
            peer.sendall(data)
            server.sent += len(data)
    return act


@contextlib.contextmanager
def full():
    """HOST:PORT of a server whose backlog is full: a connection to it is never made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, \
            contextlib.ExitStack() as stack:
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.01)
            if sock.connect_ex(listener.getsockname()):
                break
        else:
            raise OSError("there is always room")
        patience = threading.Timer(PATIENCE, listener.close)
        patience.start()
        yield "%s:%d" % listener.getsockname()
        patience.cancel()


def closed_port():
    """A port of 127.0.0.1 on which nobody listens."""
    udp, tcp = both_free()
    with udp, tcp:
        return tcp.getsockname()[1]


# ---- how long work takes

def check_growth(work, small, large):
    """The time that *work* takes for each byte grows by less than 4 from some *small* data to
    some *large*. Work in proportion to the bytes takes as long for each, but for the processor's
    caches; quadratic work on 16 times the bytes takes 16 times as long for each. The garbage
    collector has a rest meanwhile: it would look at all that the tests hold."""
    def seconds_per_byte(data):
        gc.disable()
        begin = time.thread_time()
        try:
            work(data)
            return (time.thread_time() - begin) / len(data)
        finally:
            gc.enable()

    smalls, larges = [], []
    for _ in range(5):  # of which the best count: a busy machine only adds
        smalls += [seconds_per_byte(small) for _ in range(3)]
        larges.append(seconds_per_byte(large))
        growth = min(larges) / min(smalls)
        if growth < 4:
            return
    raise AssertionError(f"{growth:.1f} times as long for each byte")


class PiecesSocket:
    """In the place of a TCP socket: its *data* comes in pieces of a *size*, and then its end."""

    def __init__(self, data, size):
        self.data, self.size, self.place = data, size, 0

    def recv(self, limit):
        place = self.place
        self.place += min(limit, self.size)
        return self.data[place:self.place]

    def recv_into(self, buffer):
        piece = self.recv(len(buffer))
        buffer[:len(piece)] = piece
        return len(piece)

    def makefile(self, mode):
        return io.BufferedReader(socket.SocketIO(self, "r"))

    def settimeout(self, seconds):
        pass

    def sendall(self, data):
        pass

    def close(self):
        pass

    _decref_socketios = close  # of its files

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


# ---- DNS messages

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28,
         "SRV": 33, "CAA": 257}
QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080


def labels(name):
    """A name of plain labels in wire format; labels are bytes or str."""
    parts = name if isinstance(name, list) else [part for part in name.split(".") if part]
    parts = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def pointer(offset):
    """A compression pointer."""
    return struct.pack("!H", 0xC000 | offset)


def strings(*texts):
    """Character strings, as TXT has them."""
    return b"".join(bytes([len(text)]) + text for text in texts)


def question(name, type_="A", class_=1):
    return labels(name) + struct.pack("!HH", TYPES.get(type_, type_), class_)


def record(type_, data, name=pointer(12), ttl=300, class_=1, length=None):
    """A resource record; *name* and *data* are bytes, *length* may lie about the latter."""
    length = len(data) if length is None else length
    return name + struct.pack("!HHIH", TYPES.get(type_, type_), class_, ttl, length) + data


def message(number, asked, answer=(), authority=(), additional=(), flags=QR | RD | RA, rcode=0,
            counts=None):
    """A DNS message; *asked* is the question's bytes, *counts* may lie about the four sections."""
    sections = answer, authority, additional
    counts = counts or (1 if asked else 0, *map(len, sections))
    head = struct.pack("!HHHHHH", number, flags | rcode, *counts)
    return head + asked + b"".join(b"".join(section) for section in sections)


class Query:
    """A query that a name server got: by whom, and taken to pieces."""

    def __init__(self, data, peer, transport):
        self.data, self.peer, self.transport = data, peer, transport
        self.id, self.flags, *self.counts = struct.unpack("!HHHHHH", data[:12])
        place, self.labels = 12, []
        while data[place]:
            self.labels.append(data[place + 1:place + 1 + data[place]])
            place += 1 + data[place]
        self.type, self.class_ = struct.unpack("!HH", data[place + 1:place + 5])
        self.name, self.rest = b".".join(self.labels).decode("latin-1"), data[place + 5:]
        self.asked = data[12:place + 5]

    def answer(self, *records, **more):
        """The bytes of an answer to it; *more* is what `message` takes."""
        return message(more.pop("number", self.id), more.pop("asked", self.asked), records, **more)


class Nameserver(Server):
    """A name server on UDP and TCP. *udp* and *tcp* are functions of a `Query`: *udp* gives a
    list of datagrams, *tcp* what goes over the stream (`framed` bytes, or a way of a `Server`).
    A datagram that is a pair ("elsewhere", data) leaves from another port."""

    def __init__(self, udp=None, tcp=None, listens=True):
        super().__init__()
        self.udp = udp or (lambda query: [query.answer()])
        self.tcp = tcp or (lambda query: framed(self.udp(query)[0]))
        self.listens, self.seen = listens, []

    def __enter__(self):
        self.datagrams, self.stream = both_free()
        super().__enter__()
        threading.Thread(target=self._receive, daemon=True).start()
        return self

    def listen(self):
        self.port = self.stream.getsockname()[1]
        if not self.listens:
            self.stream.close()
            self.stream = socket.create_server(("127.0.0.1", 0))  # somewhere else
            self.port = self.datagrams.getsockname()[1]
        self.stream.listen()
        return self.stream

    @property
    def address(self):
        return "127.0.0.1:%d" % self.datagrams.getsockname()[1]

    def __exit__(self, *exception):
        super().__exit__(*exception)
        with contextlib.suppress(OSError):
            self.datagrams.sendto(b"", self.datagrams.getsockname())  # wakes the thread up

    def _receive(self):
        with self.datagrams, socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            while True:
                data, peer = self.datagrams.recvfrom(65535)
                if self.closing.is_set():
                    return
                query = Query(data, peer, "udp")
                self.seen.append(query)
                for datagram in self.udp(query):
                    elsewhere = isinstance(datagram, tuple)
                    sender = other if elsewhere else self.datagrams
                    sender.sendto(datagram[1] if elsewhere else datagram, peer)

    def serve(self, peer):
        with peer.makefile("rb") as stream:
            length, = struct.unpack("!H", stream.read(2))
            query = Query(stream.read(length), peer.getpeername(), "tcp")
        self.seen.append(query)
        self.act(peer, self.tcp(query))


def framed(data, length=None):
    """A message as TCP carries it; *length* may lie."""
    return struct.pack("!H", len(data) if length is None else length) + data


def samples():
    """Valid answers of every kind, as a list of bytes: what a mutator begins with."""
    asked = question("www.example.com")
    domain = pointer(16)  # example.com
    soa = labels("ns1") [:-1] + domain + labels(["j.d", "example"]) + struct.pack("!5I", *range(5))
    every = {
        "A": bytes([192, 0, 2, 1]), "AAAA": bytes(range(16)), "CNAME": b"\4mail" + domain,
        "MX": b"\0\12\4mail" + domain, "NS": b"\3ns1" + domain, "PTR": domain, "SOA": soa,
        "SRV": struct.pack("!HHH", 1, 2, 5060) + labels("sip.example.com"),
        "TXT": strings(b"v=spf1 -all", b"", b'"\\;\x00\xff' * 40, b"```<!channel>"),
        "CAA": b"\x80\5issueca.example; a=\"b\"", 65280: b"\x0a\0\0\1" * 20, 65281: b"",
        99: strings(b"spf"), 41: b"", 250: bytes(40)}
    one_of_each = [record(type_, data) for type_, data in every.items()]
    ns = record("NS", b"\3ns1" + domain, name=domain)
    glue = record("A", bytes([192, 0, 2, 53]), name=labels("ns1.example.com"), ttl=2 ** 31 - 1)
    return [
        message(1, asked, one_of_each, [ns, record("SOA", soa, name=domain)], [glue]),
        message(2, asked, [], [record("SOA", soa, name=domain)], flags=QR | AA | RD, rcode=3),
        message(3, asked, flags=QR | TC | RD), message(4, b"", rcode=1),
        message(5, question("."), [record("NS", labels("a.root-servers.net"), name=b"\0")]),
        *(message(6, question("www.example.com", type_), [record(type_, data)])
          for type_, data in every.items())]


def mutated(chance, valid):
    """One of the *valid* messages with one to four accidents; *chance* is a random.Random."""
    data = bytearray(chance.choice(valid))
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(8):
            case 0 if data:
                data[place % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[place % len(data)] = chance.choice((0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xFF))
            case 2:
                del data[place:]
            case 3:
                data[place:place] = chance.randbytes(chance.randint(1, 20))
            case 4:
                other = chance.choice(valid)
                data[place:] = other[chance.randrange(len(other)):]
            case 5:
                data[place:place + 2] = pointer(chance.randrange(len(data) + 20) & 0x3FFF)
            case 6:
                data[place:place + 2] = chance.choice((b"\xff\xff", b"\0\0", b"\x7f\xff"))
            case 7:
                del data[place:place + chance.randint(1, 12)]
    return bytes(data)


# ---- dig, and a real name server

class Layout:
    """An answer in dig's layout, taken to pieces. `records` has a sorted list for each section;
    the first four fields of a record and RFC 3597's hexadecimal digits are normalised."""

    def __init__(self, text):
        self.lines = [line for line in text.splitlines() if line.strip()]
        head = re.search(r"^;; ->>HEADER<<- opcode: (\w+), status: (\w+), id: (\d+)$", text, re.M)
        assert head, f"there is no header in:\n{text}"
        self.opcode, self.status, self.id = head[1], head[2], int(head[3])
        flags = re.search(r"^;; flags:((?: \w+)*); QUERY: (\d+), ANSWER: (\d+), AUTHORITY: (\d+), "
                          r"ADDITIONAL: (\d+)$", text, re.M)
        assert flags, f"there is no line of flags in:\n{text}"
        self.flags, self.counts = flags[1].split(), [int(flags[group]) for group in range(2, 6)]
        self.questions, self.records, section = [], {}, None
        for line in self.lines:
            if found := re.fullmatch(r";; (\w+) SECTION:", line.rstrip()):
                section = found[1]
                self.records.setdefault(section, [])
            elif line.startswith(";") and section == "QUESTION" and line[1] != ";":
                self.questions.append(line[1:].split())
            elif not line.startswith(";"):
                assert section, f"a record before any section: {line}"
                self.records[section].append(self.normal(line))
        for section in self.records.values():
            section.sort()

    @staticmethod
    def normal(line):
        name, ttl, class_, type_, *data = line.split(None, 4)
        data = "".join(data).rstrip()
        if data.startswith("\\#"):
            sign, length, *digits = data.split()
            data = " ".join([sign, length, "".join(digits)]).strip()
        return " ".join([name, ttl, class_, type_, data])


def dig(port, *words):
    """What Debian's dig finds at the name server on *port*: a `Layout`."""
    done = subprocess.run(
        [tool("dig"), "@127.0.0.1", "-p", str(port), "+noedns", "+nocookie", "+noadflag",
         "+tries=2", "+time=2", *words], capture_output=True, text=True, timeout=10,
        env={"PATH": TOOLS, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"})
    return Layout(done.stdout)


class Nsd:
    """Debian's nsd in a process of its own, on a free port; *zones* is {name: text}."""

    def __init__(self, folder, zones):
        self.folder, self.zones = folder, zones

    def __enter__(self):
        udp, tcp = both_free()
        with udp, tcp:
            self.port = tcp.getsockname()[1]
        lines = [
            "server:", f"  ip-address: 127.0.0.1@{self.port}", f"  port: {self.port}",
            '  username: ""', '  chroot: ""', f'  zonesdir: "{self.folder}"', '  database: ""',
            f'  pidfile: "{self.folder}/pid"', f'  xfrdfile: "{self.folder}/xfrd"',
            f'  zonelistfile: "{self.folder}/zones"', f'  xfrdir: "{self.folder}"',
            f'  logfile: "{self.folder}/log"', "  server-count: 1", "  rrl-ratelimit: 0",
            "remote-control:", "  control-enable: no"]
        for number, (name, text) in enumerate(self.zones.items()):
            (self.folder / f"zone{number}").write_text(text, "utf-8")
            lines += ["zone:", f'  name: "{name}"', f'  zonefile: "{self.folder}/zone{number}"']
        (self.folder / "nsd.conf").write_text("\n".join(lines) + "\n")
        with open(self.folder / "output", "wb") as output:
            self.process = subprocess.Popen(
                # In timeout, so that it ends even if pytest is killed before it can end it.
                [tool("timeout"), "600", tool("nsd"), "-d", "-c", str(self.folder / "nsd.conf")],
                stdout=output, stderr=subprocess.STDOUT)
        self.await_answer(next(iter(self.zones)))
        return self

    def await_answer(self, name, seconds=PATIENCE):
        """Wait until it answers for a zone."""
        deadline = time.monotonic() + seconds
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.01)
            sock.connect(("127.0.0.1", self.port))
            while time.monotonic() < deadline and self.process.poll() is None:
                with contextlib.suppress(OSError):
                    sock.send(message(1, question(name, "SOA"), flags=RD))
                    if sock.recv(512)[3] & 15 == 0:
                        return
                    time.sleep(0.01)
        self.__exit__()
        logs = [self.folder / name for name in ("output", "log")]
        raise RuntimeError("nsd doesn't answer:\n" + "".join(
            path.read_text() for path in logs if path.exists()))

    def __exit__(self, *exception):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)


# ---- whois

class Whois(Server):
    """A whois server that answers every query with *how*: text, bytes or a way of a `Server`; a
    `{name}` in a text is another server, which may be made later. `seen` has the queries."""

    def __init__(self, how="", host="127.0.0.1"):
        super().__init__(host)
        self.how, self.seen, self.sent = how, [], 0

    def serve(self, peer):
        query = b""
        while not query.endswith(b"\n") and (data := peer.recv(4096)):
            query += data
        self.seen.append(query)
        how = self.how
        if isinstance(how, str) and how not in (CLOSED, RESET, SILENCE):
            how = how.replace("\n", "\r\n").encode()
        self.act(peer, how)


def after(seconds, text):
    """A way of a whois server: *text*, but not at once."""
    def act(server, peer):
        server.closing.wait(seconds)
        peer.sendall(text.replace("\n", "\r\n").encode())
    return act


# ---- TLS

OPENSSL = """
[ca]
default_ca = own
[own]
database = {folder}/index.txt
new_certs_dir = {folder}
unique_subject = no
default_md = sha256
policy = any
rand_serial = yes
[any]
organizationName = optional
commonName = optional
[req]
distinguished_name = none
[none]
"""
AUTHORITY = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign",
             "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid")
LEAF = ("basicConstraints=CA:FALSE", "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=serverAuth", "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid")
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


class Certificate:
    """A certificate with its key, as PEM files; `begins` and `ends` are moments."""

    def __init__(self, path, key, begins, ends):
        self.path, self.key, self.begins, self.ends = path, key, begins, ends

    @property
    def pem(self):
        return self.path.read_text()

    @property
    def fingerprint(self):
        """The SHA-256 fingerprint, in openssl's words."""
        return openssl("x509", "-in", str(self.path), "-noout", "-fingerprint",
                       "-sha256").stdout.strip().rpartition("=")[2]


def openssl(*words, **options):
    """Run the openssl tool: what `subprocess.run` gives."""
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=PATIENCE,
                          stdin=subprocess.DEVNULL, **options)
    return done


def must(done):
    """The outcome of a tool that has to have done what it was told."""
    if done.returncode:
        raise RuntimeError(f"{done.args}: {done.stderr}")
    return done


class Authority:
    """Certificates made by the openssl tool, in *folder*."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "index.txt").touch()
        (folder / "openssl.cnf").write_text(OPENSSL.format(folder=folder))
        self.config = ["-config", str(folder / "openssl.cnf")]
        self.key, self.request = self.new_key("leaf")

    def new_key(self, name):
        """A key, and a request that names it: two files."""
        key, request = self.folder / f"{name}.key", self.folder / f"{name}.csr"
        must(openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", str(key), "-out", str(request), "-subj", "/O=none",
                     *self.config))
        return key, request

    def make(self, name, issuer=None, subject=None, names=("DNS:localhost",), begins=None,
             ends=None, extensions=LEAF, own_key=False):
        """A certificate signed by *issuer* (None: by itself) for the alternative *names*."""
        key, request = self.new_key(name) if own_key else (self.key, self.request)
        begins, ends = begins or NOW - days(30), ends or NOW + days(90, hours=1)
        path, text = self.folder / f"{name}.pem", list(extensions)
        text += [f"subjectAltName={','.join(names)}"] * bool(names)
        (self.folder / f"{name}.ext").write_text("\n".join(text) + "\n")
        signer = ["-selfsign", "-keyfile", str(key)] if issuer is None else \
            ["-cert", str(issuer.path), "-keyfile", str(issuer.key)]
        must(openssl("ca", "-batch", "-notext", *self.config, *signer, "-in", str(request),
                     "-out", str(path), "-subj", subject or f"/CN={name}", "-startdate",
                     f"{begins:%Y%m%d%H%M%SZ}", "-enddate", f"{ends:%Y%m%d%H%M%SZ}",
                     "-extfile", str(self.folder / f"{name}.ext")))
        return Certificate(path, key, begins, ends)


def days(count, hours=0):
    return datetime.timedelta(days=count, hours=hours)


def broken(certificate):
    """*certificate* with a signature that isn't right."""
    body = bytearray(ssl.PEM_cert_to_DER_cert(certificate.pem))
    body[-1] ^= 1
    path = certificate.path.with_suffix(".broken.pem")
    path.write_text(ssl.DER_cert_to_PEM_cert(bytes(body)))
    return Certificate(path, certificate.key, certificate.begins, certificate.ends)


class TLS(Server):
    """A TLS server that shows the *chain* of certificates, its own first. `ciphers` gathers the
    cipher and the protocol of each connection; *ways*, one for each connection as they come,
    say what it does instead of shaking hands (None: that); *prepare* is called with the context
    before anybody comes; *sni* has the chains for some server names."""

    def __init__(self, *chain, ways=(), prepare=None, sni=None, host="127.0.0.1"):
        super().__init__(host)
        self.contexts = {None: context(chain), **{
            name: context(other) for name, other in (sni or {}).items()}}
        self.ways, self.ciphers, self.names, self.heard = [*ways], [], [], []
        self.contexts[None].sni_callback = self._named
        if prepare:
            prepare(self.contexts[None])

    def listen(self):
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        return socket.create_server((self.host, 0), family=family)

    def _named(self, peer, name, first):
        self.names.append(name)
        peer.context = self.contexts.get(name, first)

    def shaken(self, seconds=PATIENCE):
        """The cipher and the protocol of the last connection, which this end may hear of later."""
        deadline = time.monotonic() + seconds
        while not self.ciphers and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.ciphers[-1]

    def serve(self, peer):
        way = self.ways.pop(0) if self.ways else None
        if way is not None:
            return self.act(peer, way)
        with contextlib.suppress(OSError), \
                self.contexts[None].wrap_socket(peer, server_side=True) as safe:
            self.ciphers.append((safe.cipher()[0], safe.version()))
            while data := safe.recv(4096):  # until the other end is gone
                self.heard.append(data)


def context(chain):
    """A server's context with a *chain* of certificates."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    path = chain[0].path.with_suffix(f".{'-'.join(each.path.stem for each in chain)}.chain")
    path.write_text("".join(each.pem for each in chain))
    made.load_cert_chain(path, chain[0].key)
    return made


class Plain(Server):
    """A server without TLS: it says *how* to everybody who connects."""

    def __init__(self, how=SILENCE):
        super().__init__()
        self.how = how

    def serve(self, peer):
        self.act(peer, self.how)
        peer.settimeout(1)
        if self.how not in (CLOSED, RESET):
            while peer.recv(4096):  # a close that has unread bytes before it is a reset
                pass


def s_client(host, port, root, name=None):
    """What `openssl s_client` says about *host*: "ok", or its first verify error, or None where
    there was no handshake. *name* is what to connect to, unless that is *host*."""
    is_address = re.fullmatch(r"[\d.]+|.*:.*", host)
    done = openssl("s_client", "-connect", f"{name or host}:{port}", "-verify_return_error",
                   "-CAfile", str(root), *(["-noservername", "-verify_ip", host] if is_address else
                                           ["-servername", host, "-verify_hostname", host]))
    said = done.stdout + done.stderr
    if found := re.search(r"verify error:num=\d+:(.+)", said):
        return found[1].strip()
    return "ok" if "Verify return code: 0 (ok)" in said and "BEGIN CERTIFICATE" in said else None
