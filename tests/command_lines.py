"""Command lines of vLLM."""

from __future__ import annotations

import json
from typing import Any

from fixtures.core.errors import NotJudged
from fixtures.evidence.connector import Connector, connector_fault

FLAG = "--kv-transfer-config"


def text(name: str, role: str = "kv_both", **more: Any) -> str:
    return json.dumps({"kv_connector": name, "kv_role": role, **more})


V1, MP, NIXL = text("LMCacheConnectorV1"), text("LMCacheMPConnector"), text("NixlConnector")


SIZE = ("--kv-offloading-size", "8")


FILE = "tensor-parallel-size: 2\nkv_transfer_config:\n  kv_connector: LMCacheMPConnector\n  kv_role: kv_both\neager: true\n"


def multi(*members: str, role: str = "kv_both") -> str:
    return text("MultiConnector", role, kv_connector_extra_config={"connectors": [json.loads(one) for one in members]})


def read(path: str) -> str:
    if path == "/c.yaml":
        return FILE
    raise OSError(path)


OK, FAULT, OPEN = "conformant", "non-conformant", "not judged"


def verdict(connector: Connector | None, **more: Any) -> str:
    try:
        return OK if connector_fault(connector, expected="engine-0", **more) is None else FAULT
    except NotJudged:
        return OPEN


KIB = 1024


# --- the start of a log -----------------------------------------------------------------------------------------------

START = (
    "(APIServer pid=1) INFO 11-25 04:31:03 [api_utils.py:286] non-default args: {'model': 'm', 'kv_transfer_config': "
    "KVTransferConfig(kv_connector='MultiConnector', engine_id='0d', kv_role='kv_both', kv_connector_extra_config="
    "{'connectors': [{'kv_connector': 'LMCacheMPConnector', 'kv_role': 'kv_both'}]}, kv_connector_module_path=None)}\n"
    "(EngineCore pid=2) INFO 11-25 04:31:13 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='m', "
    "dtype=torch.float16, max_seq_len=8192, tensor_parallel_size=2, pipeline_parallel_size=2, data_parallel_size=1, "
    "decode_context_parallel_size=1, quantization_config=None, kv_cache_dtype=fp8, device_config=cuda\n"
    "(Worker pid=3) INFO 11-25 04:31:24 [factory.py:62] Creating v1 connector with name: MultiConnector and engine_id: 0d\n"
)
