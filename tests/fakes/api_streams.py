"""What an API server streams: logs, and port-forwards and commands by websocket."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import select
import socket
import struct
import threading
import uuid
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fakes.api_server import FakeCluster


class Streams(BaseHTTPRequestHandler):
    cluster: FakeCluster

    def answer(self, status: int, body: Any, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, reason: str, message: str) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
        self.answer(status, {**body, "code": status, "metadata": {}})

    def send_log(self, space: str, pod: str, query: dict[str, str]) -> None:
        cluster = self.cluster
        if ("api/v1/pods", space, pod) not in cluster.objects:
            self.refuse(404, "NotFound", f'pods "{pod}" not found')
            return
        lines = cluster.previous.get(pod, []) if query.get("previous") == "true" else cluster.logs.get(pod, [])
        since = query.get("sinceTime", "")[:19]
        stamps = query.get("timestamps") == "true"

        def text(part: list[tuple[str, str]]) -> bytes:
            return "".join(f"{s} {one}\n" if stamps else f"{one}\n" for s, one in part if s[:19] >= since).encode()

        if query.get("follow") != "true":
            tail = int(query.get("tailLines") or len(lines))
            self.answer(200, text(lines[-tail:] if tail else []), "text/plain")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        while cluster.logs.get(pod) is lines:
            with cluster.lock:
                part, sent = lines[sent:], len(lines)
            if data := text(part):
                self.wfile.write(chunk(data))
            if select.select([self.connection], [], [], 0.02)[0]:  # a follower sends nothing more: it is gone
                self.close_connection = True
                return
            if ("api/v1/pods", space, pod) not in cluster.objects:
                break
        if data := text(lines[sent:]):
            self.wfile.write(chunk(data))
        self.wfile.write(b"0\r\n\r\n")

    def _upgrade(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.close_connection = True

    def _frame(self, data: bytes, opcode: int = 2) -> None:
        size = len(data)
        head = bytes([0x80 | opcode])
        head += (
            bytes([size])
            if size < 126
            else struct.pack("!BH", 126, size)
            if size < 65536
            else struct.pack("!BQ", 127, size)
        )
        self.wfile.write(head + data)

    def _read_frame(self) -> tuple[int, bytes]:
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            size = struct.unpack("!H", self._exactly(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self._exactly(8))[0]
        mask = self._exactly(4)
        data = self._exactly(size)
        return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("the client is gone")
        return data

    def forward(self, pod: str, port: int) -> None:
        if not any(one["metadata"]["name"] == pod for one in self.cluster.pods()):
            self.refuse(404, "NotFound", f'pods "{pod}" not found')
            return
        target = next((where for (part, at), where in self.cluster.targets.items() if part in pod and at == port), None)
        self._upgrade()
        for channel in (0, 1):
            self._frame(bytes([channel]) + struct.pack("<H", port))
        try:
            remote = socket.create_connection(target or ("127.0.0.1", 9))
        except OSError as error:
            self._frame(b"\x01" + f"an error occurred forwarding {port}: {error}".encode())
            self._frame(struct.pack("!H", 1000), 8)
            return
        with remote:
            threading.Thread(target=self._back, args=(remote,), daemon=True).start()
            with contextlib.suppress(OSError):
                while True:
                    opcode, data = self._read_frame()
                    if opcode == 8:
                        break
                    if data[:1] == b"\x00":
                        remote.sendall(data[1:])
            with contextlib.suppress(OSError):
                remote.shutdown(socket.SHUT_RDWR)  # the thread that reads it would wait for ever

    def _back(self, remote: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := remote.recv(65536):
                self._frame(b"\x00" + data)
            self._frame(struct.pack("!H", 1000), 8)

    def run_command(self, command: list[str]) -> None:
        self._upgrade()
        text = " ".join(command)
        known = next((printed for part, printed in self.cluster.programs.items() if part in text), None)
        out = known() if callable(known) else known
        if known is not None and out is None:
            status = {"status": "Failure", "message": "command terminated with non-zero exit code: 137"}
        elif out is None:
            told = "error executing command in container: failed to exec in container: failed to start exec"
            runtime = "OCI runtime exec failed: exec failed: unable to start container process"
            why = f'{told} "{uuid.uuid4().hex}": {runtime}: exec: "{command[0]}": executable file not found in $PATH: unknown'
            status = {"status": "Failure", "message": f"Internal error occurred: {why}"}
        else:
            self._frame(b"\x01" + out.encode())
            status = {"status": "Success"}
        self._frame(b"\x03" + json.dumps(status).encode())
        self._frame(struct.pack("!H", 1000), 8)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
