"""The double as a program: `python -m espalier.testing.vllm serve FOLDER --port N ...`, with the flags of `vllm serve`.

A flag that vLLM does not document ends it, as it would end vLLM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espalier.testing.vllm.server import VllmSettings


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", allow_abbrev=False)
    serve.add_argument("model", type=Path)
    serve.add_argument("--host", required=True)
    serve.add_argument("--port", type=int, required=True)
    serve.add_argument("--served-model-name", required=True)
    serve.add_argument("--max-model-len", type=int, default=0)
    serve.add_argument("--generation-config", choices=["auto", "vllm"], default="auto")
    serve.add_argument("--scheduling-policy", choices=["fcfs", "priority"], default="fcfs")
    serve.add_argument("--enable-prompt-tokens-details", action="store_true")
    serve.add_argument("--structured-outputs-config.backend", choices=["auto", "xgrammar", "guidance", "outlines"])
    serve.add_argument("--enable-lora", action="store_true")
    serve.add_argument("--max-loras", type=int, default=1)
    serve.add_argument("--max-lora-rank", type=int, default=16, choices=[1, 8, 16, 32, 64, 128, 256, 320, 512])
    serve.add_argument("--max-cpu-loras", type=int)
    told = parser.parse_args()
    if (told.max_cpu_loras or told.max_loras) < told.max_loras:
        sys.exit("max_cpu_loras must be greater than or equal to max_loras")
    from espalier.testing.vllm import server  # it brings torch, which no wrong flag need wait for

    runtime = os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "").lower() in ("1", "true")
    settings = server.VllmSettings(
        told.model,
        told.served_model_name,
        key=os.environ.get("VLLM_API_KEY", ""),
        max_model_len=told.max_model_len,
        max_lora_rank=told.max_lora_rank,
        runtime_loras=told.enable_lora and runtime,
        priorities=told.scheduling_policy == "priority",
        prompt_details=told.enable_prompt_tokens_details,
    )
    asyncio.run(_serve(settings, told.host, told.port))


async def _serve(settings: VllmSettings, host: str, port: int) -> None:
    from aiohttp import web

    from espalier.testing.vllm.server import VllmDouble

    double = VllmDouble(settings)
    runner = web.AppRunner(double.app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    sys.stdout.write(f"serving {settings.name} on {host}:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
