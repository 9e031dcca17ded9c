"""A stand-in for a Kubernetes API server with its controllers and one kubelet, for tests of the code that talks to one.

``FakeCluster`` stores objects by path, over plain HTTP, and acts on Deployments: each gets a ReplicaSet and pods whose
further life is a *fate*, recorded on a real cluster (``tests/data/cluster/fates.json``: objects and events of Kubernetes
1.36 as they were). A real Helm 3 or 4 installs, upgrades and uninstalls against it.

What it imitates: create, get, list (label selectors, pages), update, patch, apply, dry run, delete with a grace, access
reviews, logs (follow, previous, since, timestamps), port-forward and exec by websocket, and how an API server misbehaves:
away for a while (``away``), connections cut (``cut``), 410 Gone, 403. What it does not: watches, resource versions that
mean anything, admission beyond ``refuses``, defaulting, scheduling by room.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
import re
import select
import socket
import struct
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import yaml

from fixtures.provide.kube.paths import PATHS

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]
FATES: dict[str, Json] = json.loads((Path(__file__).parents[1] / "data/cluster/fates.json").read_text())
KINDS = {f"{api}/{plural}": kind for kind, (api, plural) in PATHS.items()}
CLUSTER_WIDE = {
    "namespaces",
    "nodes",
    "storageclasses",
    "runtimeclasses",
    "priorityclasses",
    "persistentvolumes",
    "customresourcedefinitions",
}
GRACE_S = 0.3
OBJECT = re.compile(
    r"^(?P<api>api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$"
)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class FakeCluster:
    """One cluster. ``fates`` maps the name of a Deployment (or a part of it) to how its pods fare."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        """By (collection, namespace, name)."""
        self.fates: dict[str, str] = {}
        self.forbidden: set[tuple[str, str]] = set()
        """(verb, resource) that nobody may."""
        self.granted: set[tuple[str, str, str]] | None = None
        """(verb, API group, resource) that the caller may, and nothing else; None: everything."""
        self.refuses: dict[str, str] = {}
        """By name of an object, why a dry run refuses it."""
        self.logs: dict[str, list[tuple[str, str]]] = {}
        """By pod: (time stamp, line)."""
        self.previous: dict[str, list[tuple[str, str]]] = {}
        self.targets: dict[tuple[str, int], tuple[str, int]] = {}
        """By (part of a pod's name, port): where a port-forward leads."""
        self.programs: dict[str, str | Callable[[], str | None]] = {}
        """By a part of a command line, what exec prints, or what it does and prints; None: it ends with its container."""
        self.gone = 0
        """So many continuations are answered with 410."""
        self.requests: list[str] = []
        self.open_connections = 0
        self.most_connections = 0
        self.young_s = 0.0
        """Age of what is made, in seconds: a fate's grace counts from there."""
        self.lock = threading.RLock()
        self._sockets: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        for name in ("default", "kube-system"):
            self.put("api/v1/namespaces", "", {"metadata": {"name": name}})
        node = {
            "metadata": {"name": "node-a"},
            "spec": {},
            "status": {
                "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        self.put("api/v1/nodes", "", node)
        default = {"storageclass.kubernetes.io/is-default-class": "true"}
        self.put(
            "apis/storage.k8s.io/v1/storageclasses",
            "",
            {"metadata": {"name": "standard", "annotations": default}, "provisioner": "example.com/disk"},
        )

    def allows(self, verb: str, group: str, resource: str) -> bool:
        """Whether the caller may do that."""
        if (verb, resource) in self.forbidden:
            return False
        return self.granted is None or (verb, group, resource) in self.granted

    # --- life -----------------------------------------------------------------------------------------------------
    def start(self) -> FakeCluster:
        handler = type("Handler", (_Handler,), {"cluster": self})
        ThreadingHTTPServer.allow_reuse_address = True
        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Cut every connection that is open, as a restart of the API server does."""
        with self.lock:
            sockets, self._sockets = list(self._sockets), set()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def away(self) -> Any:
        """Nobody answers meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig with the contexts ``fake`` (current) and ``other``."""
        path = folder / "kubeconfig"
        cluster = {"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        contexts = [
            {"name": name, "context": {"cluster": "fake", "user": "fake", "namespace": "somebody-elses"}}
            for name in ("fake", "other")
        ]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [cluster],
            "contexts": contexts,
            "users": [{"name": "fake", "user": {"token": "sesame-of-the-fake"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # --- objects --------------------------------------------------------------------------------------------------
    def put(self, collection: str, namespace: str, thing: Json) -> Json:
        with self.lock:
            key = (collection, namespace, thing["metadata"]["name"])
            known = self.objects.get(key)
            meta = thing["metadata"]
            meta.setdefault("uid", known["metadata"]["uid"] if known else str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", known["metadata"]["creationTimestamp"] if known else now())
            meta["resourceVersion"] = str(int((known or {}).get("metadata", {}).get("resourceVersion", 0)) + 1)
            if namespace:
                meta["namespace"] = namespace
            before = known["metadata"].get("generation", 1) if known else 0
            changed = known is None or known.get("spec") != thing.get("spec")
            meta["generation"] = before + 1 if changed else before
            if known is not None and "status" in known:
                thing.setdefault("status", known["status"])
            self.objects[key] = thing
            if changed and collection == "apis/apps/v1/deployments":
                self._roll_out(namespace, thing)
            if known is None and collection.endswith("persistentvolumeclaims"):
                self._bind(thing)
            if collection.endswith("customresourcedefinitions"):
                thing["status"] = {
                    "conditions": [{"type": kind, "status": "True"} for kind in ("NamesAccepted", "Established")]
                }
            return thing

    def find(self, collection: str, namespace: str = "") -> list[Json]:
        with self.lock:
            return [
                one for (kind, space, _), one in list(self.objects.items())
                if kind == collection and namespace in ("", space)
            ]  # fmt: skip

    def pods(self, namespace: str = "") -> list[Json]:
        return self.find("api/v1/pods", namespace)

    def remove(self, collection: str, namespace: str, name: str) -> None:
        """Remove an object and, a moment later, what it owns or holds."""
        with self.lock:
            thing = self.objects.get((collection, namespace, name))
            if thing is None:
                return
            slow = collection in {"api/v1/pods", "api/v1/namespaces"}
            if slow:
                thing["metadata"]["deletionTimestamp"] = now()
            else:
                del self.objects[collection, namespace, name]
            uid = thing["metadata"]["uid"]
            owned = [
                (kind, space, each)
                for (kind, space, each), one in list(self.objects.items())
                if any(owner.get("uid") == uid for owner in one["metadata"].get("ownerReferences") or [])
            ]
            inside = [key for key in self.objects if key[1] == name] if collection == "api/v1/namespaces" else []
        for key in owned + inside:
            if key != (collection, namespace, name):
                self.remove(*key)
        if slow:
            wait = 2 * GRACE_S if collection == "api/v1/namespaces" else GRACE_S
            threading.Timer(wait, lambda: self._drop(collection, namespace, name)).start()

    def _drop(self, collection: str, namespace: str, name: str) -> None:
        with self.lock:
            self.objects.pop((collection, namespace, name), None)
            if collection == "api/v1/namespaces":  # with what was made while it was deleted
                for key in [key for key in self.objects if key[1] == name]:
                    del self.objects[key]

    # --- controllers ----------------------------------------------------------------------------------------------
    def fate_of(self, name: str) -> str:
        return next((fate for part, fate in self.fates.items() if part in name), "ready")

    def _roll_out(self, namespace: str, deployment: Json) -> None:
        name, uid = deployment["metadata"]["name"], deployment["metadata"]["uid"]
        for one in self.find("apis/apps/v1/replicasets", namespace):
            if any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences", [])):
                self.remove("apis/apps/v1/replicasets", namespace, one["metadata"]["name"])
        recorded = FATES[self.fate_of(name)]
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - self.young_s))
        text = json.dumps(deployment["spec"]["template"], sort_keys=True)
        suffix = hashlib.sha256(text.encode()).hexdigest()[:8]
        ours = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid, "controller": True}
        replicas = int(deployment["spec"].get("replicas") or 1)
        sets: Json = {
            "metadata": {"name": f"{name}-{suffix}", "ownerReferences": [ours]},
            "spec": {"replicas": replicas},
            "status": _aged(recorded["replica_sets"][0].get("status") or {}, made),
        }
        sets = self.put("apis/apps/v1/replicasets", namespace, sets)
        deployment["status"] = _aged(recorded["deployment"].get("status") or {}, made)
        self._tell(recorded, "ReplicaSet", sets, namespace)
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": sets["metadata"]["name"], "controller": True}
        owner["uid"] = sets["metadata"]["uid"]
        for index in range(replicas if recorded["pods"] else 0):
            self._make_pod(namespace, deployment, owner, index, recorded, made)

    def _make_pod(self, namespace: str, deployment: Json, owner: Json, index: int, recorded: Json, made: str) -> None:
        template = deployment["spec"]["template"]
        spec = copy.deepcopy(template["spec"]) | {"nodeName": "node-a"}
        status = _aged(recorded["pods"][0]["status"], made)
        status["podIP"] = f"10.0.0.{len(self.pods()) + 1}"
        pattern = (status.get("containerStatuses") or [{}])[0]
        named = list(spec["containers"]) if "containerStatuses" in status else []
        status["containerStatuses"] = [
            {**copy.deepcopy(pattern), "name": one["name"], "image": one["image"]} for one in named
        ]
        meta: Json = {
            "name": f"{owner['name']}-{index:05d}",
            "labels": dict(template["metadata"].get("labels") or {}),
            "ownerReferences": [owner],
            "creationTimestamp": made,
        }
        pod = self.put("api/v1/pods", namespace, {"metadata": meta, "spec": spec, "status": status})
        self.logs.setdefault(meta["name"], [(f"{now()[:-1]}.000000001Z", "INFO starting")])
        if (
            recorded["pods"][0]["status"]["phase"] == "Running"
            and self.fate_of(deployment["metadata"]["name"]) == "crash"
        ):
            said = [
                (f"{now()[:-1]}.00000000{n}Z", line) for n, line in enumerate(("INFO starting", "ValueError: boom"))
            ]
            self.logs[meta["name"]] = self.previous[meta["name"]] = said
        self._tell(recorded, "Pod", pod, namespace)

    def _tell(self, recorded: Json, kind: str, thing: Json, namespace: str) -> None:
        for event in recorded["events"]:
            if event["involvedObject"]["kind"] == kind:
                meta = thing["metadata"]
                about = {"kind": kind, "name": meta["name"], "uid": meta["uid"]}
                one = {**event, "involvedObject": about, "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:8]}"}}
                for stamp in ("lastTimestamp", "eventTime"):
                    if one.get(stamp):
                        one[stamp] = now()
                self.put("api/v1/events", namespace, one)

    def _bind(self, claim: Json) -> None:
        asked = (claim.get("spec") or {}).get("storageClassName")
        known = {one["metadata"]["name"] for one in self.find("apis/storage.k8s.io/v1/storageclasses")}
        bound = asked in known if asked else bool(known)
        claim["status"] = {"phase": "Bound" if bound else "Pending"}

    def restart(self, pod: str, *, why: str = "Error", code: int = 1) -> None:
        """A container ends and starts again; its log becomes the previous one."""
        with self.lock:
            thing = next(one for one in self.pods() if one["metadata"]["name"] == pod)
            for status in thing["status"]["containerStatuses"]:
                status["restartCount"] += 1
                status["lastState"] = {"terminated": {"reason": why, "exitCode": code}}
            self.previous[pod] = self.logs[pod]
            self.logs[pod] = []

    def say(self, pod: str, line: str) -> None:
        """A container logs a line."""
        moment = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1e9):09d}Z"
        with self.lock:
            self.logs[pod].append((stamp, line))


def _aged(status: Json, made: str) -> Json:
    """A recorded status with its times moved to ``made``."""
    text = json.dumps(status)
    return json.loads(re.sub(r'"\d{4}-\d\d-\d\dT[0-9:]+(\.\d+)?Z"', json.dumps(made), text))


class _Handler(BaseHTTPRequestHandler):
    cluster: FakeCluster
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.cluster.lock:
            self.cluster._sockets.add(self.request)
            self.cluster.open_connections += 1
            self.cluster.most_connections = max(self.cluster.most_connections, self.cluster.open_connections)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        with self.cluster.lock:
            self.cluster._sockets.discard(self.request)
            self.cluster.open_connections -= 1

    def log_message(self, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, ValueError):
            super().handle_one_request()
            return
        self.close_connection = True

    # --- answers --------------------------------------------------------------------------------------------------
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

    def do_any(self) -> None:
        url = urlsplit(self.path)
        path = url.path.strip("/")
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        size = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(size)
        self.cluster.requests.append(f"{self.command} /{path}")
        known = OBJECT.match(path)
        if known is None:
            self._meta(path, raw)
            return
        api, space, plural, name, sub = known.group("api", "ns", "plural", "name", "sub")
        if plural == "namespaces" and space is None:
            space = ""
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
            self.command, "get" if name else "list"
        )
        resource = f"{plural}/{sub}" if sub else plural
        group = api.split("/")[1] if api.startswith("apis/") else ""
        if plural != "selfsubjectaccessreviews" and not self.cluster.allows(verb, group, resource):
            self.refuse(403, "Forbidden", f'{resource} is forbidden: User "tester" cannot {verb} resource "{resource}"')
        elif plural == "selfsubjectaccessreviews":
            self._review(json.loads(raw))
        elif sub == "log":
            self._log(space or "", str(name), query)
        elif sub == "portforward":
            self._forward(str(name), int(query["ports"]))
        elif sub == "exec":
            self._exec(parse_qs(url.query)["command"])
        else:
            body = _secret(raw) if raw[:4] == b"k8s\0" else yaml.safe_load(raw) if raw else {}
            self._object(f"{api}/{plural}", space or "", name, body, query)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815

    def _meta(self, path: str, raw: bytes) -> None:
        groups: dict[str, set[str]] = {}
        for api, _ in PATHS.values():
            if api != "api/v1":
                _, group, version = api.split("/")
                groups.setdefault(group, set()).add(version)
        if path == "version":
            self.answer(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.2"})
        elif path == "api":
            self.answer(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "apis":
            entries = []
            for group, versions in sorted(groups.items()):
                named = [{"groupVersion": f"{group}/{one}", "version": one} for one in sorted(versions)]
                entries.append({"name": group, "versions": named, "preferredVersion": named[0]})
            self.answer(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries})
        elif path == "openapi/v2":
            self.answer(200, b"", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        elif path == "openapi/v3":
            self.answer(200, {"paths": {}})
        elif path in {api for api, _ in PATHS.values()}:
            resources = [
                {
                    "name": plural,
                    "singularName": plural.rstrip("s"),
                    "namespaced": plural not in CLUSTER_WIDE,
                    "kind": kind,
                    "verbs": ["create", "delete", "get", "list", "patch", "update"],
                }
                for kind, (api, plural) in PATHS.items()
                if api == path
            ]
            version = path.partition("/")[2]
            self.answer(200, {"kind": "APIResourceList", "groupVersion": version, "resources": resources})
        else:
            self.refuse(404, "NotFound", f"the server could not find the requested resource: {path}")

    def _review(self, review: Json) -> None:
        asked = review["spec"]["resourceAttributes"]
        resource = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        allowed = self.cluster.allows(asked["verb"], asked.get("group") or "", resource)
        self.answer(201, {**review, "status": {"allowed": allowed}})

    def _object(self, collection: str, space: str, name: str | None, body: Json, query: dict[str, str]) -> None:
        cluster = self.cluster
        kind = KINDS.get(collection, "Thing")
        version = collection.rpartition("/")[0].partition("/")[2]
        if collection.rpartition("/")[2] in CLUSTER_WIDE:
            space = ""
        labelled = {"kind": kind, "apiVersion": version}
        if name is None and self.command == "GET":
            self._list(collection, space, query, labelled)
            return
        if self.command == "POST":
            name = body["metadata"].get("name") or f"{body['metadata'].get('generateName', 'x')}{uuid.uuid4().hex[:5]}"
        found = cluster.objects.get((collection, space, str(name)))
        holder = cluster.objects.get(("api/v1/namespaces", "", space)) if space else None
        if space and holder is None and self.command != "GET":
            self.refuse(404, "NotFound", f'namespaces "{space}" not found')
        elif holder and "deletionTimestamp" in holder["metadata"] and self.command == "POST":
            why = f"unable to create new content in namespace {space} because it is being terminated"
            self.refuse(403, "Forbidden", f'{collection.rpartition("/")[2]} "{name}" is forbidden: {why}')
        elif self.command == "POST" and found is not None:
            self.refuse(409, "AlreadyExists", f'{collection.rpartition("/")[2]} "{name}" already exists')
        elif kind == "RoleBinding" and self.command in {"POST", "PATCH"} and (lacking := self._lacking(space, body)):
            self.refuse(404, "NotFound", f'rolebindings.rbac.authorization.k8s.io "{lacking}" not found')
        elif self.command == "PATCH" and query.get("dryRun"):
            if str(name) in cluster.refuses:
                self.refuse(422, "Invalid", cluster.refuses[str(name)])
            else:
                self.answer(200, body)
        elif self.command == "POST" or (self.command == "PATCH" and "apply" in self.headers["Content-Type"]):
            self.answer(201, labelled | cluster.put(collection, space, _applied(found or {}, body)))
        elif found is None:
            self.refuse(404, "NotFound", f'{collection.rpartition("/")[2]} "{name}" not found')
        elif self.command == "GET":
            self.answer(200, labelled | found)
        elif self.command == "PUT":
            self.answer(200, labelled | cluster.put(collection, space, body))
        elif self.command == "PATCH":
            self.answer(200, labelled | cluster.put(collection, space, _merged(copy.deepcopy(found), body)))
        else:
            cluster.remove(collection, space, str(name))
            self.answer(200, {"kind": "Status", "status": "Success"})

    def _lacking(self, space: str, binding: Json) -> str | None:
        """The Role that a binding names and that is not there: a caller who is no administrator is asked for its rights."""
        reference = binding.get("roleRef") or {}
        role = self.cluster.objects.get(("apis/rbac.authorization.k8s.io/v1/roles", space, str(reference.get("name"))))
        return str(reference.get("name")) if reference.get("kind") == "Role" and role is None else None

    def _list(self, collection: str, space: str, query: dict[str, str], labelled: Json) -> None:
        found = [one for one in self.cluster.find(collection, space) if _selected(one, query.get("labelSelector", ""))]
        meta: Json = {"resourceVersion": "1"}
        limit = int(query.get("limit") or 0)
        at = int(query.get("continue") or 0)
        if at and self.cluster.gone:
            self.cluster.gone -= 1
            self.refuse(
                410, "Expired", "The provided continue parameter is too old to display a consistent list result."
            )
            return
        if limit and len(found) > at + limit:
            meta["continue"] = str(at + limit)
        page = found[at : at + limit] if limit else found
        self.answer(200, {**labelled, "kind": f"{labelled['kind']}List", "metadata": meta, "items": page})

    # --- streams --------------------------------------------------------------------------------------------------
    def _log(self, space: str, pod: str, query: dict[str, str]) -> None:
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
                self.wfile.write(_chunk(data))
            if select.select([self.connection], [], [], 0.02)[0]:  # a follower sends nothing more: it is gone
                self.close_connection = True
                return
            if ("api/v1/pods", space, pod) not in cluster.objects:
                break
        if data := text(lines[sent:]):
            self.wfile.write(_chunk(data))
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

    def _forward(self, pod: str, port: int) -> None:
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

    def _exec(self, command: list[str]) -> None:
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


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message: (number, integer or bytes)."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
            if not byte & 0x80:
                return value, at

    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        tag, at = varint(at)
        value, at = varint(at)
        if tag & 7 == 2:
            found.append((tag >> 3, data[at : at + value]))
            at += value
        else:
            found.append((tag >> 3, value))
    return found


def _secret(raw: bytes) -> Json:
    """A Secret as Helm 4 sends it, in protobuf (runtime.Unknown around core/v1 Secret); {} for anything else."""
    envelope = dict(_fields(raw[4:]))
    if dict(_fields(envelope[1])).get(2) != b"Secret":
        return {}
    message = _fields(envelope[2])
    meta = _fields(dict(message)[1])
    labels = [dict(_fields(value)) for number, value in meta if number == 11]
    data = [dict(_fields(value)) for number, value in message if number == 2]
    return {
        "metadata": {
            "name": dict(meta)[1].decode(),
            "labels": {one[1].decode(): one.get(2, b"").decode() for one in labels},
        },
        "data": {one[1].decode(): base64.b64encode(one.get(2, b"")).decode() for one in data},
        "type": dict(message).get(3, b"Opaque").decode(),
    }


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _applied(below: Json, body: Json) -> Json:
    """An object after an apply: labels and annotations of others stay."""
    found = copy.deepcopy(below) | copy.deepcopy(body)
    for part in ("labels", "annotations"):
        kept = {**(below.get("metadata", {}).get(part) or {}), **(body["metadata"].get(part) or {})}
        if kept:
            found["metadata"][part] = kept
    return found


def _merged(below: Json, above: Json) -> Json:
    for key, value in above.items():
        if value is None:
            below.pop(key, None)
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            below[key] = _merged(below[key], value)
        else:
            below[key] = value
    return below


def _selected(thing: Json, selector: str) -> bool:
    labels = thing["metadata"].get("labels") or {}
    for part in selector.split(","):
        key, equals, value = part.replace("==", "=").partition("=")
        if key and (key not in labels or (equals and labels[key] != value)):
            return False
    return True
