"""The interpreter by a chat endpoint, against a stand-in server: good answers, bad ones, none, and the key."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mezzotint import Dialogue, Edit, UserError
from mezzotint_dialogue.endpoint import KEY, read_by_endpoint

INPUTS = {"prompt": {"type": "string", "default": "a red circle"}, "seed": {"type": "integer", "default": 0}}
BEGUN = Dialogue("g.json")
SECRET = "sk-very-secret"


class StandIn:
    """A server whose answers are a list of functions of the handler; it notes what it was asked."""

    def __init__(self):
        self.asked, self.headers, self.answers = [], [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.headers.append(dict(self.headers))
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.paths = [*getattr(outer, "paths", []), self.path]
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                answer(self)

            do_GET = do_POST

            def log_message(self, *given):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def body(data, status=200, **headers):
    def send(handler):
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    return send


def saying(content, **message):
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    return body({"choices": [{"message": {"role": "assistant", "content": text, **message}}]})


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    server = StandIn()
    yield server
    server.server.shutdown()
    server.server.server_close()


def read(server, said="make it blue", dialogue=BEGUN, **settings):
    return read_by_endpoint(dialogue, said, inputs=INPUTS, **{"url": server.url, "timeout": "5", **settings})


@pytest.mark.parametrize(
    ("answer", "edit"),
    [
        (
            {"action": "prompt", "prompt": "a blue circle"},
            Edit("set", {"prompt": "a blue circle"}, "a blue circle"),
        ),
        ({"action": "seed", "seed": 9, "text": "done"}, Edit("set", {"seed": 9}, "done")),
        ({"action": "seed"}, Edit("set", {"seed": 1})),
        ({"action": "undo"}, Edit("undo")),
        ({"action": "redo"}, Edit("redo")),
        ({"action": "say", "text": "which one?"}, Edit("say", text="which one?")),
    ],
)
def test_an_answer_becomes_an_edit(stand_in, answer, edit):
    stand_in.answers = [saying(answer)]
    assert read(stand_in) == edit


def test_a_fenced_answer_is_read(stand_in):
    stand_in.answers = [saying('```json\n{"action": "undo"}\n```')]
    assert read(stand_in) == Edit("undo")


def test_it_is_told_the_schema_the_prompt_and_what_was_said_before(stand_in):
    stand_in.answers = [saying({"action": "undo"})]
    before = BEGUN.after("blue please", Edit("set", {"prompt": "a blue circle"}))
    read(stand_in, "no, green", before, model="tiny")
    (asked,) = stand_in.asked
    assert asked["model"] == "tiny" and stand_in.paths == ["/v1/chat/completions"]
    assert asked["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    text = [message["content"] for message in asked["messages"]]
    assert text[1] == "blue please" and "'a blue circle'" in text[-1] and text[-1].endswith("no, green")


@pytest.mark.parametrize(
    "bad",
    ["of course!", "[]", "{}", {"action": "rm"}, {"action": "prompt"}, {"action": "prompt", "prompt": " "},
     {"action": "undo", "model": "/etc/passwd"}, {"action": "seed", "seed": -1}, {"action": "seed", "seed": "3"},
     {"action": "prompt", "prompt": "a" * 3000}],
)  # fmt: skip
def test_an_answer_of_another_schema_is_sent_back_and_mended(stand_in, bad):
    stand_in.answers = [saying(bad), saying({"action": "undo"})]
    assert read(stand_in) == Edit("undo")
    assert "not of the schema" in stand_in.asked[1]["messages"][-1]["content"]


def test_after_two_repairs_it_gives_up(stand_in):
    stand_in.answers = [saying("nonsense")]
    with pytest.raises(UserError, match=r"no usable answer in 3 tries.*not of the schema"):
        read(stand_in)
    assert len(stand_in.asked) == 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (body(b"<html>"), "no chat completion"),
        (body({"choices": []}), "no chat completion"),
        (body([1]), "no chat completion"),
        (body({"choices": [{"message": {"content": 3}}]}), "no chat completion"),
        (saying(None, refusal="I will not"), "refuses: I will not"),
        (body({"choices": [{"finish_reason": "content_filter", "message": {"content": None}}]}), "filter"),
        (body({}, 401), "401: it wants a key"),
        (body({}, 404), "404"),
        (body({}, 429), "too often"),
        (body({}, 500), "500"),
        (body(b"x" * 600_000), "longer than 256 KiB"),
        (lambda handler: handler.connection.close(), "broke off|no connection|no chat completion"),
    ],
)
def test_a_bad_service_is_an_error_in_words(stand_in, answer, why):
    stand_in.answers = [answer]
    with pytest.raises(UserError, match=why):
        read(stand_in)


def test_a_late_answer_is_not_waited_for(stand_in):
    stand_in.answers = [lambda handler: time.sleep(3)]
    with pytest.raises(UserError, match=r"no answer within 0\.2 s"):
        read(stand_in, timeout="0.2")


def test_an_answer_that_trickles_is_not_waited_for_either(stand_in):
    def trickle(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.05)

    stand_in.answers = [trickle]
    with pytest.raises(UserError, match=r"no answer within 0\.4 s"):
        read(stand_in, timeout="0.4")


def test_nobody_there_is_an_error():
    with pytest.raises(UserError, match="no connection"):
        read_by_endpoint(BEGUN, "x", inputs=INPUTS, url="http://127.0.0.1:9/v1", timeout="5")


def test_the_key_goes_to_the_address_and_nowhere_else(stand_in, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    stand_in.answers = [saying({"action": "undo"})]
    edit = read(stand_in)
    assert stand_in.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in json.dumps(stand_in.asked) and SECRET not in repr(edit)


def test_the_key_does_not_follow_a_redirect(stand_in, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    stand_in.answers = [body({}, 307, Location="/elsewhere")]
    with pytest.raises(UserError, match="307: it redirects") as caught:
        read(stand_in)
    assert len(stand_in.asked) == 1 and SECRET not in str(caught.value)


def test_an_error_does_not_show_what_the_service_repeats(stand_in, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    stand_in.answers = [body({"error": f"bad key {SECRET}"}, 403)]
    with pytest.raises(UserError) as caught:
        read(stand_in)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"url": ""}, "wants an address"),
        ({"url": "localhost:8080"}, "wanted an address"),
        ({"url": "file:///etc/passwd"}, "wanted an address"),
        ({"url": "http://me:pw@localhost/v1"}, "plain address"),
        ({"url": "http://example.com/v1"}, "wanted https"),
        ({"timeout": "soon"}, "wanted seconds"),
        ({"timeout": "nan"}, "wanted seconds"),
    ],
)
def test_bad_settings_are_named(monkeypatch, settings, why):
    monkeypatch.setenv(KEY, SECRET)
    with pytest.raises(UserError, match=why):
        read_by_endpoint(BEGUN, "x", inputs=INPUTS, **{"url": "http://localhost:9/v1", **settings})


@pytest.mark.parametrize("key", ["two words", "line\nend", "schlüssel"])
def test_a_key_that_is_none_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(UserError, match="cannot be a key") as caught:
        read_by_endpoint(BEGUN, "x", inputs=INPUTS, url="http://localhost:9/v1")
    assert key not in str(caught.value)
