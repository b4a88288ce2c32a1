"""A server of OpenAI's protocol over a real model, in a process of its own.

    python openai_server.py MODEL

Prints its port. A POST to /fault forgets what was asked, and says what happens to the
first attempt at every prompt from then on: `fault` is a status such as 429 or 503, `stall`
(an answer that takes too long), `empty` (no choices in it), `drop` (the connection is
closed), or nothing bad. With `silent`, answers report no usage; `window` is how many tokens a
prompt may have. Prompts that contain the word "refused" are bad requests. GET gives a list of
all answers so far: status, prompt, how many requests were being answered, authorization and
path.
"""

import json
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from limo_nb.core.settings import Sampling
from limo_nb.inference import prompt_ids
from limo_nb.inference.decoder import Decoder

DECODER = Decoder(sys.argv[1], "float32")
LOCK = threading.Lock()


@dataclass
class State:
    """What the server remembers."""

    fault: str = ""
    silent: bool = False
    window: int = 10**9
    flying: int = 0
    seen: set[str] = field(default_factory=set)
    log: list[dict] = field(default_factory=list)


STATE = State()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with LOCK:
            self.send(200, STATE.log)

    def do_POST(self) -> None:
        global STATE
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/fault":
            STATE = State(**body)
            self.send(200, {})
            return
        state, chat = STATE, self.path.startswith("/v1/chat/completions")
        prompt = body["messages"] if chat else body["prompt"]
        self.template = body.get("chat_template_kwargs")
        attempt = json.dumps([prompt, body["seed"]])
        with LOCK:
            state.flying += 1
            fault = "" if attempt in state.seen else state.fault
            state.seen.add(attempt)
        if "refused" in json.dumps(prompt):
            self.answer(state, 400, {"error": {"message": "this prompt is refused"}}, prompt)
        elif state.fault == "no system" and prompt[0]["role"] == "system":
            said = "System role not supported"
            self.answer(state, 400, {"error": {"message": said}}, prompt)
        elif (tokens := len(prompt_ids(DECODER.tokenizer, prompt))) > state.window:
            said = f"This model's maximum context length is {state.window} tokens. However, "
            said += f"your prompt contains {tokens} input tokens."
            self.answer(state, 400, {"error": {"message": said}}, prompt)
        elif fault == "drop":
            self.record(state, "drop", prompt)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "empty":
            body = {"id": "a", "object": "error", "created": 0, "model": "m", "choices": []}
            self.answer(state, 200, {**body, "error": "the backend is gone"}, prompt)
        elif fault == "stall":
            time.sleep(4)
            self.answer(state, 200, self.completion(body, prompt, chat), "too late")
        elif fault and fault != "no system":
            self.answer(state, int(fault), {"error": {"message": "not now"}}, prompt)
        else:
            self.answer(state, 200, self.completion(body, prompt, chat), prompt)

    def completion(self, body: dict, prompt: object, chat: bool) -> dict:
        sampling = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            max_new_tokens=body["max_tokens"],
        )
        with LOCK:
            ids = prompt_ids(DECODER.tokenizer, prompt)
            (made,) = DECODER.decode([ids], [0], [body["seed"]], sampling)
        choice = {"index": 0, "finish_reason": "stop" if made.finished else "length"}
        choice |= (
            {"message": {"role": "assistant", "content": made.text}}
            if chat
            else {"text": made.text}
        )
        tokens = made.tokens + made.finished
        usage = {"completion_tokens": tokens, "prompt_tokens": len(ids), "total_tokens": 0}
        usage = {} if STATE.silent else {"usage": usage}
        return {
            "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [choice], **usage,
        }  # fmt: skip

    def answer(self, state: State, status: int, value: object, prompt: object) -> None:
        self.record(state, status, prompt)
        self.send(status, value)

    def send(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("retry-after-ms", "20")
        self.end_headers()
        self.wfile.write(data)

    def record(self, state: State, status: object, prompt: object) -> None:
        with LOCK:
            line = {"status": status, "prompt": prompt, "flying": state.flying}
            line |= {"template": self.template}
            line |= {"authorization": self.headers["Authorization"], "path": self.path}
            state.log.append(line)
            state.flying -= 1

    def log_message(self, *args: object) -> None:
        """Nothing to the terminal."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # until the test closes the pipe, or dies
