"""How an API server answers requests for objects."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import socket
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from fixtures.provide.kube.paths import PATHS
from tests.fakes.api_objects import applied, merged, secret, selected
from tests.fakes.api_streams import Streams

Json = dict[str, Any]
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
OBJECT = re.compile(
    r"^(?P<api>api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$"
)


class Handler(Streams):
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
            self.send_log(space or "", str(name), query)
        elif sub == "portforward":
            self.forward(str(name), int(query["ports"]))
        elif sub == "exec":
            self.run_command(parse_qs(url.query)["command"])
        else:
            body = secret(raw) if raw[:4] == b"k8s\0" else yaml.safe_load(raw) if raw else {}
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
            self.answer(201, labelled | cluster.put(collection, space, applied(found or {}, body)))
        elif found is None:
            self.refuse(404, "NotFound", f'{collection.rpartition("/")[2]} "{name}" not found')
        elif self.command == "GET":
            self.answer(200, labelled | found)
        elif self.command == "PUT":
            self.answer(200, labelled | cluster.put(collection, space, body))
        elif self.command == "PATCH":
            self.answer(200, labelled | cluster.put(collection, space, merged(copy.deepcopy(found), body)))
        else:
            cluster.remove(collection, space, str(name))
            self.answer(200, {"kind": "Status", "status": "Success"})

    def _lacking(self, space: str, binding: Json) -> str | None:
        """The Role that a binding names and that is not there: a caller who is not an administrator is asked for its rights."""
        reference = binding.get("roleRef") or {}
        role = self.cluster.objects.get(("apis/rbac.authorization.k8s.io/v1/roles", space, str(reference.get("name"))))
        return str(reference.get("name")) if reference.get("kind") == "Role" and role is None else None

    def _list(self, collection: str, space: str, query: dict[str, str], labelled: Json) -> None:
        found = [one for one in self.cluster.find(collection, space) if selected(one, query.get("labelSelector", ""))]
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
