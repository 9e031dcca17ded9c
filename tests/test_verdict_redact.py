"""What counts as a secret, and what must not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.verdict.redact import _ROOT, MASK, redact, redact_tree, remember, remember_all


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token hf_abcdefghijklmnop used", "token [redacted] used"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer [redacted]"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [redacted]"),
        ("key sk-proj-abcdefgh1234 end", "key [redacted] end"),
        ("vllm serve m --api-key topsecret --port 1", "vllm serve m --api-key [redacted] --port 1"),
        ("--api-key=topsecret --port 1", "--api-key=[redacted] --port 1"),
        ("['--api-key', 'topsecret', '--port']", "['--api-key', '[redacted]', '--port']"),
        ("- --api-key\n- topsecret\n- --port", "- --api-key\n- [redacted]\n- --port"),
        ("HF_TOKEN=abc LMCACHE_CHUNK_SIZE=256", "HF_TOKEN=[redacted] LMCACHE_CHUNK_SIZE=256"),
        ('export VLLM_API_KEY="two words"', 'export VLLM_API_KEY="[redacted]"'),
        ('{"REDIS_PASSWORD": "x y", "a": 1}', '{"REDIS_PASSWORD": "[redacted]", "a": 1}'),
        ("- name: HF_TOKEN\n  value: abc\n- name: B", "- name: HF_TOKEN\n  value: [redacted]\n- name: B"),
        ('{"name": "VLLM_API_KEY", "value": "x"}', '{"name": "VLLM_API_KEY", "value": "[redacted]"}'),
        ('{"hf_token": "abc", "n": 1}', '{"hf_token": "[redacted]", "n": 1}'),
        (r"{\"apiKey\": \"abc\"}", r"{\"apiKey\": \"[redacted]\"}"),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected, "redacting twice must change nothing"


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 8, prompt_tokens=512",
        "expected 2048 tokens loaded, got 0",
        '{"token": "Hello", "logprob": -0.1}',
        '{"eos_token": "</s>", "bos_token_id": 1}',
        'vllm:prompt_tokens_by_source_total{source="external_kv_transfer"} 2048',
        "Stored 2048 out of total 2049 tokens. size: 0.25 GB",
        "suite/test_accounted.py::test_a_task-12345678-is-done",
        "the secret of a good test",
    ],
)
def test_facts_are_left_alone(text: str) -> None:
    assert redact(text) == text


def test_a_tree_is_masked_by_key_and_by_content() -> None:
    tree = {
        "env": {"HF_TOKEN": "x", "PORT": 1, "hf_token": ""},
        "args": ("--api-key=x", None, 1.5, True),
        "logprobs": [{"token": "Hello"}],
        "tags": {"b", "a"},
        "error": ValueError("Bearer abcdefgh"),
    }
    assert redact_tree(tree) == {
        "env": {"HF_TOKEN": "[redacted]", "PORT": 1, "hf_token": ""},
        "args": ["--api-key=[redacted]", None, 1.5, True],
        "logprobs": [{"token": "Hello"}],
        "tags": ["a", "b"],
        "error": "Bearer [redacted]",
    }


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=20)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(max_size=10), LEAVES | st.lists(LEAVES, max_size=4), max_size=5))
def test_a_tree_stays_json_and_is_stable(tree: dict[str, object]) -> None:
    once = redact_tree(tree)
    json.dumps(once)
    assert redact_tree(once) == once


@settings(deadline=None)
@given(st.text(), st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEF0123456789", min_size=16, max_size=40))
def test_no_hugging_face_token_survives(around: str, token: str) -> None:
    secret = f"hf_{token}"
    assert secret not in redact(f"{around} {secret} {around}")


def test_folders_of_this_machine_are_named_by_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("KV_OFFLOAD_CACHE", "/home/somebody/.cache/kv/")
    assert redact("/home/somebody/x /home/somebody") == "~/x ~"
    assert redact("file:///home/somebody/x") == "file://~/x"
    assert redact("/home/somebody/.cache/kv/engine/bin/python") == "$KV_OFFLOAD_CACHE/engine/bin/python"
    assert (
        redact("/home/somebodyelse/x https://host/home/somebody") == "/home/somebodyelse/x https://host/home/somebody"
    )
    assert redact(f"{_ROOT}/suite/test_x.py:3") == "./suite/test_x.py:3"


@pytest.mark.parametrize("home", ["", "/"])
def test_a_home_that_is_no_folder_hides_nothing(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    assert redact("/usr/bin/python") == "/usr/bin/python"


def test_what_was_remembered_is_masked_wherever_it_stands(monkeypatch):
    monkeypatch.setattr("fixtures.verdict.redact._KNOWN", set())
    remember_all(
        {"servingEngineSpec": {"vllmApiKey": "plain-word"}, "modelSpec": [{"hf_token": "other-word"}], "tag": "v1"}
    )
    remember("abc")  # too short to be masked by value
    assert redact("vllmApiKey: plain-word, hf_token: other-word, v1 abc") == (
        f"vllmApiKey: {MASK}, hf_token: {MASK}, v1 abc"
    )
    assert redact_tree({"args": ["serve", "plain-word"]}) == {"args": ["serve", MASK]}
