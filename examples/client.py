"""Our own server, asked with OpenAI's package. Needs the extra `serve` and `pip install openai`."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import openai

with socket.socket() as probe:  # a free port
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

server = subprocess.Popen([sys.executable, "-m", "phi4mini", "serve", "-m", "demo", "--port", str(port)])
try:
    for _ in range(600):  # /ready answers 200 once the model is there
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready")
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none is needed on this machine")
    stream = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        max_tokens=40,
        stream=True,
    )
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()
finally:
    server.terminate()
    server.wait()
