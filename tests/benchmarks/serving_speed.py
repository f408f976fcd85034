"""Tokens per second of `crawl2chat serve` compared with llama.cpp's server and transformers' `generate`, on the same weights in float32.

    python -m tests.benchmarks.serving_speed [BUNDLE]

BUNDLE: a folder with model.safetensors, config.json and tokenizer.json, as the stage `export` makes it. llama.cpp (the package xllamacpp) loads
the GGUF file that is made of it, with NUM_THREADS threads, as many as ours computes a small model with: two threads that wait for each other
on a machine that is shared would measure the machine. Both servers are processes that one client asks over HTTP, 1, 4 and 16
requests at a time, each of NUM_PROMPT random tokens and completed greedily by NUM_TOKENS, without a stop. transformers completes 16 such
prompts as one batch, in the process of the client. Rounds alternate; medians are compared. Also: the time to the first token of a stream, memory of the server
over NUM_REQUESTS requests, and clients that hang up midway.
"""

import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.harness import machine, print_table, say

NUM_PROMPT, NUM_TOKENS, NUM_ROUNDS, CONCURRENT = 32, 64, 5, (1, 4, 16)
NUM_REQUESTS, NUM_HANGUPS, NUM_THREADS = 1_000, 200, 1
MAX_TOKENS = 256


def serve_ours(folder: Path) -> None:
    from model.serve.served import ServedModel
    from model.serve.server import run_server

    served = ServedModel("bundle", folder, folder / "tokenizer.json")
    run_server([served], host="127.0.0.1", port=0, api_key=None, announce=lambda line: print(line, flush=True))


def serve_theirs(folder: Path, num_threads: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "model-f32.gguf")
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    params.n_parallel = max(CONCURRENT)
    params.n_ctx = MAX_TOKENS * max(CONCURRENT)  # llama.cpp divides it between its slots
    params.verbosity = -1
    server = xllamacpp.Server(params)
    print(f"Open {server.listening_address}/", flush=True)
    time.sleep(10**6)


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[tuple[int, int]]:
    """A server in a process: its port and process id."""
    command = [sys.executable, "-m", "tests.benchmarks.serving_speed", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        try:
            line = next(line for line in process.stdout if line.startswith("Open http"))
            yield int(line.split("/")[2].rpartition(":")[2]), process.pid
        finally:
            process.terminate()


class Client:
    """Requests over connections that stay open. By hand, since the client shares the processor with the servers."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def complete(self, prompt: list[int], connection: Any = None) -> int:
        """Tokens of a completion."""
        reader, writer = connection
        writer.write(_request(prompt, stream=False))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        num_tokens: int = answer["usage"]["completion_tokens"]
        return num_tokens

    async def run(self, prompts: Sequence[list[int]], num_concurrent: int) -> float:
        """Tokens a second of `num_concurrent` requests at a time."""
        queue, counted = list(prompts), 0
        connections = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(num_concurrent)]

        async def work(connection: Any) -> None:
            nonlocal counted
            while queue:
                # In two steps: a sum around an await would be of what it was before.
                num_tokens = await self.complete(queue.pop(), connection)
                counted += num_tokens

        start = time.monotonic()
        await asyncio.gather(*map(work, connections))
        seconds = time.monotonic() - start
        for _, writer in connections:
            writer.close()
        return counted / seconds

    async def first_token(self, prompt: list[int]) -> float:
        """Seconds until the first piece of a stream."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        start = time.monotonic()
        writer.write(_request(prompt, stream=True))
        await reader.readuntil(b"data:")
        seconds = time.monotonic() - start
        await reader.read()
        writer.close()
        return seconds

    async def hang_up(self, prompt: list[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(_request(prompt, stream=True, num_tokens=MAX_TOKENS - NUM_PROMPT))
        await reader.readuntil(b"data:")
        writer.close()

    async def get(self, path: str) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return json.loads(answer.partition(b"\r\n\r\n")[2])


def _request(prompt: list[int], *, stream: bool, num_tokens: int = NUM_TOKENS) -> bytes:
    body = {"prompt": prompt, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True, "stream": stream}
    content = json.dumps(body).encode()
    close = "Connection: close\r\n" if stream else ""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{close}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def make_prompts(count: int, vocab_size: int, seed: int) -> list[list[int]]:
    draws = random.Random(seed)
    return [[draws.randrange(20, vocab_size) for _ in range(NUM_PROMPT)] for _ in range(count)]


def write_gguf_file(bundle: Path, folder: Path) -> int:
    """The bundle's weights as model-f32.gguf in `folder` -> V."""
    from model.network.gguf import write_gguf
    from model.network.huggingface import from_hugging_face, read_weights
    from model.tokenizer.chat import ChatTokenizer
    from model.tokenizer.llama_cpp import read_vocabulary

    config = from_hugging_face(json.loads((bundle / "config.json").read_text()))
    tokenizer = ChatTokenizer.load(bundle / "tokenizer.json")
    write_gguf(
        folder / "model-f32.gguf",
        read_weights(bundle),
        config,
        read_vocabulary(bundle / "tokenizer.json"),
        tokenizer,
        matrices="f32",
        max_tokens=MAX_TOKENS,
        fields={"general.name": "bundle"},
    )
    return config.vocab_size


class Speed(NamedTuple):
    """Of one server, or of transformers, with so many requests at a time."""

    tokens_per_second: float
    tokens_per_cpu_second: float


def load_transformers(bundle: Path) -> Callable[[Sequence[list[int]]], Speed]:
    """The function that completes a batch of prompts with transformers' `generate`."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(NUM_THREADS)
    model = AutoModelForCausalLM.from_pretrained(bundle)

    def complete(prompts: Sequence[list[int]]) -> Speed:
        tokens, start, cpu_start = torch.tensor(list(prompts)), time.monotonic(), time.process_time()
        model.generate(tokens, max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0)
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu_start
        return Speed(len(prompts) * NUM_TOKENS / seconds, len(prompts) * NUM_TOKENS / cpu)

    return complete


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def compare(bundle: Path, folder: Path, vocab_size: int) -> dict[str, dict[int, Speed]]:
    """Median speeds of each server by the number of concurrent requests, and of transformers."""
    found: dict[tuple[str, int], list[Speed]] = {}
    complete = load_transformers(bundle)
    with contextlib.ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(server("--ours", str(bundle))),
            "llama.cpp": stack.enter_context(server("--theirs", str(folder), str(NUM_THREADS))),
        }
        for number in range(NUM_ROUNDS + 1):
            for concurrent in CONCURRENT:
                for name, (port, pid) in servers.items():
                    prompts = make_prompts(max(16, 4 * concurrent), vocab_size, seed=1000 * number + concurrent)
                    before = cpu_seconds(pid)
                    speed = asyncio.run(Client(port).run(prompts, concurrent))
                    used = max(cpu_seconds(pid) - before, 0.01)
                    if number:  # the first warms up
                        found.setdefault((name, concurrent), []).append(Speed(speed, len(prompts) * NUM_TOKENS / used))
            peer = complete(make_prompts(max(CONCURRENT), vocab_size, seed=number))
            if number:
                found.setdefault(("transformers", max(CONCURRENT)), []).append(peer)
            say(f"round {number} of {NUM_ROUNDS}")
    medians: dict[str, dict[int, Speed]] = {}
    for (name, concurrent), speeds in found.items():
        medians.setdefault(name, {})[concurrent] = Speed(*map(statistics.median, zip(*speeds, strict=True)))
    return medians


def endurance(bundle: Path, vocab_size: int) -> list[tuple[object, ...]]:
    """Time to first token, memory over many requests, and hang-ups."""
    with server("--ours", str(bundle)) as (port, pid):
        client = Client(port)
        prompts = make_prompts(NUM_REQUESTS, vocab_size, seed=7)
        asyncio.run(client.run(prompts[:100], 16))
        waits = sorted(asyncio.run(client.first_token(prompt)) for prompt in prompts[100:140])
        before = resident_bytes(pid)
        asyncio.run(client.run(prompts, 16))
        after = resident_bytes(pid)

        async def hang_ups() -> float:
            await asyncio.gather(*(client.hang_up(prompt) for prompt in prompts[:NUM_HANGUPS]))
            start = time.monotonic()
            while any(count for load in (await client.get("/health"))["models"].values() for count in load.values()):
                await asyncio.sleep(0.01)
            return time.monotonic() - start

        idle = asyncio.run(hang_ups())
    return [
        ("Time to first token of a stream, median of 40", f"{statistics.median(waits) * 1000:.1f} ms"),
        ("Memory before and after 1,000 requests", f"{before / 2**20:.1f}, {after / 2**20:.1f} MiB"),
        (f"Time until nothing runs after {NUM_HANGUPS} clients hung up midway", f"{idle:.2f} s"),
    ]


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--ours"]:
        serve_ours(Path(arguments[1]))
    elif arguments[:1] == ["--theirs"]:
        serve_theirs(Path(arguments[1]), int(arguments[2]))
    else:
        report(Path(arguments[0]))


def _ratios(mine: Speed, theirs: Speed) -> list[str]:
    return [f"{a:,.0f} / {b:,.0f} = {a / b:.2f}" for a, b in zip(mine, theirs, strict=True)]


def report(bundle: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        vocab_size = write_gguf_file(bundle, Path(name))
        speeds = compare(bundle, Path(name), vocab_size)
    rows: list[tuple[object, ...]] = []
    for concurrent, mine in speeds["ours"].items():
        peers = (speeds[name].get(concurrent) for name in ("llama.cpp", "transformers"))
        rows.append((concurrent, *(cell for peer in peers for cell in (_ratios(mine, peer) if peer else ["", ""]))))
    headings = ["Requests at a time"]
    for name in "llama.cpp", "transformers":
        headings += [f"Tokens a second, of {name}, ratio", "Per CPU second"]
    title = f"Serving: tokens a second, prompts of {NUM_PROMPT} tokens, {NUM_TOKENS} new tokens"
    print_table(title, headings, rows, machine())
    print_table(
        "Serving: first token, memory, hang-ups", ["Measure", "crawl2chat serve"], endurance(bundle, vocab_size)
    )


if __name__ == "__main__":
    main()
