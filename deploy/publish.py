"""Publish a report as a ConfigMap, from inside a cluster, with nothing but the standard library and the suite's redaction.

Usage: ``python deploy/publish.py NAME FOLDER``. The pod's service account needs the Role of ``deploy/rbac.yaml``. What is
too large for a ConfigMap (1 MiB in all) is left out and named.
"""

from __future__ import annotations

import base64
import io
import json
import os
import ssl
import sys
import tarfile
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fixtures.core.redaction.redact import redact, redact_xml

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"))
ROOM_BYTES = 900_000


def manifest(name: str, folder: Path) -> dict[str, object]:
    """Return the ConfigMap: documents and badges as text, the Allure results as an archive; each redacted once more."""
    data = {path.name: redact(path.read_text()) for path in sorted(folder.glob("conformance.*"))}
    data |= {path.name: path.read_text() for path in sorted(folder.glob("badge-*.svg"))}
    room = ROOM_BYTES - sum(len(text.encode()) for text in data.values())
    binary = {}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for top in ("allure-results", "allurerc.json", "junit.xml"):
            inside = sorted((folder / top).iterdir()) if (folder / top).is_dir() else [folder / top]
            for path in inside:
                if path.is_file():
                    _add(tar, path, str(path.relative_to(folder)))
    encoded = base64.b64encode(archive.getvalue()).decode()
    if len(encoded) <= room:
        binary["allure.tar.gz"] = encoded
    else:
        print(f"allure.tar.gz is left out: {len(encoded)} bytes, and {room} are left in the ConfigMap", file=sys.stderr)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "kv-offload-conformance"}},
        "data": data,
        "binaryData": binary,
    }


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:  # an image
        pass
    else:
        data = (redact_xml(text) if path.suffix == ".xml" else redact(text)).encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


def main(name: str, folder: Path) -> None:
    """Apply it: made where it is not there, replaced where it is."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = (ACCOUNT / "namespace").read_text().strip()
    scheme = os.environ.get("KUBERNETES_SCHEME", "https")
    url = (
        f"{scheme}://{host}:{port}/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager=conformance&force=true"
    )
    request = urllib.request.Request(
        url,
        method="PATCH",
        data=json.dumps(manifest(name, folder)).encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/apply-patch+yaml",  # server-side apply; JSON is YAML
        },
    )
    certificate = ACCOUNT / "ca.crt"
    context = ssl.create_default_context(cafile=str(certificate)) if scheme == "https" else None
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        print(f"configmap/{name} in {namespace}: {answer.status}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
