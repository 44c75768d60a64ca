# SPDX-License-Identifier: Apache-2.0
"""
fc_standin_http.py - the HTTP server of the stand-in for Firecracker: as narrow as the real one's

One thread, one request at a time, at most MAX_CONNECTIONS connections on a unix socket. A line of more than LINE_BYTES, a
body above the limit, an unknown method, a broken header: 400 with a body that is not valid JSON, because the real server's
is not either. What came before in the same read and was not answered yet is dropped with it. Chunks are not understood: a
request with them has no body, and its chunks are a broken request.
"""

import contextlib
import selectors
import socket

MAX_CONNECTIONS = 10
LINE_BYTES = 1024  # of the request line and of each header, line end included
READ_BYTES = 1024
DROPPED = "All previous unanswered requests will be dropped."
FULL = (b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
        b'{ "error": "Too many open connections" }')
MEDIA_TYPES = ("application/json", "text/plain")


class ParseError(Exception):
    """What the request is refused for before anybody looks at what it asks."""


class Request:
    """One request: body is None if there is none."""

    def __init__(self, method, path, version):
        self.method, self.path, self.version = method, path, version
        self.length, self.expect, self.body = 0, False, None


class Response:
    """What to answer; `then` is called once it is sent."""

    def __init__(self, status, body=None, deprecated=False, then=None):
        self.status, self.body, self.deprecated, self.then = status, body, deprecated, then

    def encode(self):
        """The bytes on the wire."""
        lines = [f"HTTP/1.1 {self.status} ", "Server: Firecracker API", "Connection: keep-alive"]
        if self.deprecated:
            lines.append("Deprecation: true")
        body = b""
        if self.body is not None:
            body = self.body.encode()
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines + ["", ""]).encode() + body


def parse_path(uri):
    """The path of a request line's second word."""
    if not uri:
        raise ParseError("Invalid URI: Empty URI not allowed.")
    try:
        text = uri.decode()
    except UnicodeDecodeError:
        raise ParseError("Invalid URI: Cannot parse URI as UTF-8.") from None
    if text.startswith("http://"):
        rest = text[len("http://"):]
        return rest[rest.index("/"):] if "/" in rest else ""
    return text if text.startswith("/") else ""


def parse_request_line(line, methods):
    """A request without headers."""
    words = bytes(line).split(b" ", 2)
    if len(words) != 3:
        raise ParseError("Invalid request.")
    method, uri, version = words
    if method.decode(errors="replace") not in methods:
        raise ParseError("Invalid HTTP Method: Unsupported HTTP method.")
    path = parse_path(uri)
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise ParseError("Invalid HTTP Version: Unsupported HTTP version.")
    return Request(method.decode(), path, version.decode())


def refuse_encodings(key, value):
    """Only the bare body can be had: whoever forbids that is refused."""
    if not value:
        raise ParseError("Invalid header. Reason: Invalid value. Key:Accept-Encoding; Value:")
    for part in value.split(","):
        words = part.replace(" ", "").split(";")
        if words[0] in ("identity", "*") and len(words) > 1 and words[1] in ("q=0", "q=0.0"):
            raise ParseError(f"Invalid header. Reason: Invalid value. Key:{key}; Value:{value}")


def parse_header(request, line):
    """Take one header line into account."""
    try:
        text = bytes(line).decode()
    except UnicodeDecodeError as e:
        raise ParseError(f"Invalid header. Reason: Header contains invalid characters. Key: {e}") from None
    key, colon, value = text.partition(":")
    if not colon:
        raise ParseError(f"Invalid header. Reason: Header is incorrectly formatted. Key: {key}")
    name, value = key.strip().lower(), value.strip()
    if name == "content-length":
        if not (value.isascii() and value.isdigit()) or int(value) >= 1 << 32:
            raise ParseError(f"Invalid header. Reason: Invalid value. Key:{key}; Value: {value}")
        request.length = int(value)
    elif name == "expect" and value == "100-continue":
        request.expect = True
    elif name == "accept-encoding":
        refuse_encodings(key, value)


class Connection:
    """One client: what it has sent so far, and requests out of it."""

    def __init__(self, sock, methods, body_max):
        self.sock, self.methods, self.body_max = sock, methods, body_max
        self.buffer = bytearray()
        self.request = None  # the one whose headers are being read
        self.body_wanted = None  # set once the headers have ended

    def _line(self):
        """The next line, or None if it has not come yet."""
        end = self.buffer.find(b"\r\n", 0, LINE_BYTES)
        if end < 0:
            if len(self.buffer) >= LINE_BYTES:
                if self.request is None:
                    raise ParseError("Invalid request.")
                text = bytes(self.buffer[:40]).decode(errors="replace")
                raise ParseError(f"Invalid header. Reason: Invalid content length. Header: {text}")
            return None
        line = self.buffer[:end]
        del self.buffer[:end + 2]
        return line

    def _end_of_headers(self):
        request = self.request
        if request.length > self.body_max:
            raise ParseError(f"Request payload with size {request.length} is larger than the limit of "
                             f"{self.body_max} allowed by server.")
        if request.expect and request.length:
            self.sock.sendall(Response(100).encode())
        self.body_wanted = request.length

    def _step(self):
        """Parse one piece. Return: (whether anything was parsed, a whole request or None)."""
        if self.body_wanted is not None:
            if len(self.buffer) < self.body_wanted:
                return False, None
            request, n = self.request, self.body_wanted
            if n:
                request.body = bytes(self.buffer[:n])
                del self.buffer[:n]
            self.request = self.body_wanted = None
            return True, request
        line = self._line()
        if line is None:
            return False, None
        if self.request is None:
            self.request = parse_request_line(line, self.methods)
        elif not line:
            self._end_of_headers()
        else:
            parse_header(self.request, line)
        return True, None

    def feed(self, data):
        """Requests that are whole now; ParseError if anything in data is wrong, and all of it is forgotten."""
        self.buffer += data
        requests = []
        try:
            while True:
                went_on, request = self._step()
                if request:
                    requests.append(request)
                if not went_on:
                    return requests
        except ParseError:
            self.buffer.clear()
            self.request = self.body_wanted = None
            raise


class Server:
    """Listens; each request is given to handle(request), which returns a Response."""

    def __init__(self, path, handle, methods, body_max):
        self.handle, self.methods, self.body_max = handle, methods, body_max
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen(128)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.socket, selectors.EVENT_READ, None)
        self.connections = 0

    def watch(self, fd, callback):
        """Also call back when fd is readable."""
        self.selector.register(fd, selectors.EVENT_READ, callback)

    def _accept(self):
        sock, _ = self.socket.accept()
        if self.connections >= MAX_CONNECTIONS:
            with sock, contextlib.suppress(OSError):  # the client may have gone
                sock.sendall(FULL)
            return
        self.connections += 1
        self.selector.register(sock, selectors.EVENT_READ, Connection(sock, self.methods, self.body_max))

    def _close(self, connection):
        self.selector.unregister(connection.sock)
        connection.sock.close()
        self.connections -= 1

    def _respond(self, connection, response):
        try:
            connection.sock.sendall(response.encode())
        except OSError:
            pass  # the client has gone; what it asked for was done nevertheless
        if response.then:
            response.then()

    def _read(self, connection):
        try:
            data = connection.sock.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        try:
            requests = connection.feed(data)
        except ParseError as e:
            # A raw line break in a string, and no escapes: not JSON, as it is not there.
            self._respond(connection, Response(400, f'{{ "error": "{e}\n{DROPPED}" }}'))
            return
        except OSError:
            self._close(connection)
            return
        for request in requests:
            self._respond(connection, self.handle(request))

    def serve(self):
        """Forever."""
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    self._accept()
                elif isinstance(key.data, Connection):
                    self._read(key.data)
                else:
                    key.data()
