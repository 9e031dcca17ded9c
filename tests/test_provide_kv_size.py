"""Bytes of KV per token of a model."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.evidence.vllm_options import parse_options
from fixtures.provide.kv_size import kv_bytes_per_token
from tests.command_lines import KIB

MISTRAL_7B = {
    "hidden_size": 4096,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 32768,
    "model_type": "mistral",
}


QWEN3_8B = {
    "head_dim": 128,
    "hidden_size": 4096,
    "max_position_embeddings": 40960,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
    "model_type": "qwen3",
}


LLAMA32_1B = {
    "head_dim": 64,
    "hidden_size": 2048,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
    "model_type": "llama",
}


DEEPSEEK = {
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "max_position_embeddings": 163840,
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "torch_dtype": "bfloat16",
    "vocab_size": 129280,
    "model_type": "deepseek_v3",
}


@pytest.mark.parametrize(
    ("config", "argv", "size"),
    [
        (MISTRAL_7B, "", 128 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype auto", 128 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype fp8", 64 * KIB),
        (MISTRAL_7B, "--kv_cache_dtype=fp8_e4m3", 64 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype fp8_e5m2 --dtype float32", 64 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype bfloat16 --dtype float32", 128 * KIB),
        (MISTRAL_7B, "--dtype float16", 128 * KIB),
        (MISTRAL_7B, "--dtype half", 128 * KIB),
        (MISTRAL_7B, "--dtype float32", 256 * KIB),
        (MISTRAL_7B, "--dt=float", 256 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype turboquant_k8v4", None),
        (MISTRAL_7B, "-tp 4", 128 * KIB),
        (MISTRAL_7B, "-tp 8", 128 * KIB),
        (MISTRAL_7B, "-tp 16", 256 * KIB),
        (MISTRAL_7B, "-pp 2", 128 * KIB),
        (MISTRAL_7B, "-tp 16 -dcp 2", None),
        (MISTRAL_7B, "-tp 16 --decode-context-parallel-size=1", 256 * KIB),
        (QWEN3_8B, "", 144 * KIB),
        (LLAMA32_1B, "", 32 * KIB),
        (LLAMA32_1B, '--hf-overrides {"num_hidden_layers":8}', 16 * KIB),
        (DEEPSEEK, "", 61 * 576 * 2),
        (DEEPSEEK, "-tp 8", 61 * 576 * 2),
        (DEEPSEEK | {"index_head_dim": 128}, "", None),
        (MISTRAL_7B | {"quantization_config": {"kv_cache_scheme": {"num_bits": 8}}}, "", None),
        (MISTRAL_7B | {"quantization_config": {"quantization": {"kv_cache_quant_algo": "FP8"}}}, "", None),
        (MISTRAL_7B, "--kv-cache-dtype fp8 --kv-cache-dtype-skip-layers 0 1", None),
        (MISTRAL_7B, '--speculative-config {"method":"eagle3","model":"x"}', None),
        (MISTRAL_7B, '--speculative-config {"method":"ngram"}', 128 * KIB),
        ({"model_type": "gpt2", "n_layer": 12}, "", None),
        ({"model_type": "x", "num_hidden_layers": "many"}, "", None),
    ],
)
def test_bytes_of_kv_per_token(config: dict[str, Any], argv: str, size: int | None) -> None:
    assert kv_bytes_per_token(config, parse_options(argv.split())) == size
