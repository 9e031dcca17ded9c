"""The size of KV by a model's configuration: known models, defaults of Hugging Face, and what cannot be sized."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.core.model_geometry import Geometry

MISTRAL_7B = {  # mistralai/Mistral-7B-v0.3
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 32768,
}


LATENT = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}


def test_geometry_of_a_known_model() -> None:
    geometry = Geometry.from_config(MISTRAL_7B)
    assert geometry.kv_bytes_over(1) == 128 * 1024


@pytest.mark.parametrize(
    ("change", "dtype", "kv_bytes"),
    [
        ({"num_key_value_heads": None}, "auto", 4 * 128 * 1024),
        ({"head_dim": 256}, "auto", 2 * 128 * 1024),
        ({"torch_dtype": "float32"}, "auto", 128 * 1024),
        ({"torch_dtype": None, "dtype": "float16"}, "auto", 128 * 1024),
        ({}, "float32", 2 * 128 * 1024),
        ({}, "fp8", 64 * 1024),
    ],
)
def test_defaults_of_hugging_face_configurations(change: Any, dtype: Any, kv_bytes: Any) -> None:
    assert Geometry.from_config({**MISTRAL_7B, **change}, dtype).kv_bytes_over(1) == kv_bytes


def test_a_latent_is_stored_once_however_many_workers_there_are() -> None:
    geometry = Geometry.from_config({**MISTRAL_7B, **LATENT})
    assert geometry.kv_bytes_over(1) == geometry.kv_bytes_over(8) == 32 * 576 * 2


def test_a_multimodal_configuration_is_read_from_its_text_part() -> None:
    assert Geometry.from_config({"model_type": "mistral3", "text_config": MISTRAL_7B}).layers == 32


@pytest.mark.parametrize(
    ("config", "dtype", "message"),
    [
        ({**MISTRAL_7B, "kv_lora_rank": 512}, "auto", "no qk_rope_head_dim"),
        ({**MISTRAL_7B, **LATENT, "index_head_dim": 128}, "auto", "full attention"),
        ({**MISTRAL_7B, "layer_types": ["linear_attention", "full_attention"]}, "auto", "full attention"),
        ({"model_type": "gpt2", "n_layer": 12}, "auto", "gpt2 has no num_attention_heads"),
        (MISTRAL_7B, "int3", "'int3' is not supported"),
    ],
)
def test_configurations_whose_kv_cache_cannot_be_sized(config: Any, dtype: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Geometry.from_config(config, dtype)
