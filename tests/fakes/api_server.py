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

import contextlib
import copy
import hashlib
import json
import re
import socket
import threading
import time
import uuid
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.fakes.api_requests import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]
FATES: dict[str, Json] = json.loads((Path(__file__).parents[1] / "data/cluster/fates.json").read_text())
GRACE_S = 0.3


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class FakeCluster:
    """One cluster. ``fates`` maps the name of a Deployment (or a part of it) to how its pods fare."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        """By (collection, namespace, name)."""
        self.fates: dict[str, str] = {}
        self.forbidden: set[tuple[str, str]] = set()
        """(verb, resource) that no user has."""
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
        handler = type("Handler", (Handler,), {"cluster": self})
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
