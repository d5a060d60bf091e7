"""What a child process is given of our environment: no secret, and whatever else it may need."""

from __future__ import annotations

import pytest

from espalier.serve.environment import share_environment


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "openai_apikey", "GITHUB_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CLIENT_SECRET",
        "PGPASSWORD", "PGPASSFILE", "MYSQL_PWD", "SMTP_PASS", "KEY_PASSPHRASE", "GOOGLE_APPLICATION_CREDENTIALS",
        "REDISCLI_AUTH", "SSH_AUTH_SOCK", "DATABASE_URL", "SENTRY_DSN", "SLACK_WEBHOOK_URL", "MONGO_URI",
        "AZURE_STORAGE_CONNECTION_STRING", "AWS_PROFILE", "AWS_SESSION_TOKEN", "ESPALIER_STORE__URL",
        "ESPALIER_GATEWAY__PORT",
    ],
)  # fmt: skip
def test_what_is_called_as_secrets_are_called_stays_here(name: str) -> None:
    assert share_environment({name: "x"}) == {}


@pytest.mark.parametrize("value", ["http://me:pw@proxy:3128", "redis://:pw@cache/0", "a,postgresql+x://u:p@h/d"])
def test_an_address_with_a_password_in_it_stays_here_whatever_it_is_called(value: str) -> None:
    assert share_environment({"HTTPS_PROXY": value}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "PWD", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
        "NCCL_SOCKET_IFNAME", "CUDA_DEVICE_MAX_CONNECTIONS", "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE", "VLLM_USE_V1",
        "VLLM_ATTENTION_BACKEND", "TORCH_CUDA_ARCH_LIST", "OMP_NUM_THREADS",
        "TOKENIZERS_PARALLELISM", "HF_HOME", "XDG_CACHE_HOME", "ESPALIER_KERNELS", "VIRTUAL_ENV", "no_proxy",
    ],
)  # fmt: skip
def test_what_a_program_needs_to_run_is_shared(name: str) -> None:
    assert share_environment({name: "/x"}) == {name: "/x"}


def test_a_proxy_without_a_password_is_shared() -> None:
    assert share_environment({"https_proxy": "http://proxy:3128"}) == {"https_proxy": "http://proxy:3128"}


def test_without_words_it_is_this_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "x")
    monkeypatch.setenv("SOME_WORD", "y")
    shared = share_environment()
    assert "SOME_TOKEN" not in shared and shared["SOME_WORD"] == "y"
