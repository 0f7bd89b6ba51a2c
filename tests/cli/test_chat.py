"""chat: turns and slash commands from a pipe, the line editor in a real terminal, Markdown as it streams."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import pytest

from phi4mini.cli.markdown import finished
from tests.cli.conftest import COMMAND, DEMO, ROOT, environment, refused

CAPITAL = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module", autouse=True)
def store(demo_store):
    demo_store("f32")


def test_turns_from_a_pipe(phi4mini):
    done = phi4mini("chat", *DEMO, "-n", "20", stdin=f"{CAPITAL}\n\n/stats\n/bye\nnever read\n".encode())
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")
    assert "answer 8 tokens" in done.stderr and "of 8192 tokens" in done.stderr


def test_a_conversation_is_remembered_saved_and_loaded(phi4mini, tmp_path):
    path = tmp_path / "talk.json"
    first = phi4mini("chat", *DEMO, "-sys", "Be brief.", stdin=f"{CAPITAL}\n/save {path}\n".encode())
    assert first.returncode == 0, first.stderr
    saved = json.loads(path.read_text())["messages"]
    assert [message["role"] for message in saved] == ["system", "user", "assistant"]
    assert saved[2]["content"] + "\n" == first.stdout
    second = phi4mini("chat", *DEMO, "-n", "1", stdin=f"/load {path}\n/system\nAnd of Italy?\n/stats\n".encode())
    assert "loaded 2 messages" in second.stderr and "Be brief." in second.stderr
    tokens = re.search(r"prompt (\d+) tokens", second.stderr)
    assert tokens and int(tokens[1]) > 40


def test_settings_are_checked_when_they_are_set(phi4mini):
    lines = '/set temperature 0.5\n/set temprature 1\n/set top_p 7\n/set stop ["Paris"]\n/set\n/nonsense\n/help\n'
    done = phi4mini("chat", *DEMO, stdin=(lines + f"{CAPITAL}\n").encode())
    assert done.returncode == 0
    assert "nearest there is: 'temperature'" in done.stderr and "top_p must be" in done.stderr
    assert "no /nonsense" in done.stderr and "/clear" in done.stderr
    assert "temperature = 0.5" in done.stderr and "stop = ['Paris']" in done.stderr and "top_p = 7" not in done.stderr
    assert "Paris" not in done.stdout


def test_a_full_context_refuses_the_turn_and_keeps_the_conversation(phi4mini):
    done = phi4mini("chat", *DEMO, "-c", "60", stdin=f"{CAPITAL}\n{'word ' * 60}\n/stats\n/clear\n{CAPITAL}\n".encode())
    assert done.returncode == 0
    assert "the context holds 60" in done.stderr and "/clear" in done.stderr
    assert done.stdout == f"{ANSWER}\n{ANSWER}\n"


def test_bad_input_is_refused(phi4mini, tmp_path):
    bad = phi4mini("chat", *DEMO, stdin=b"\xff\n")
    assert bad.returncode == 2 and "line 1 of stdin is not UTF-8" in bad.stderr.splitlines()[-1]
    refused(phi4mini("chat", *DEMO, "--temp", "-1"), "temperature")
    (tmp_path / "no.json").write_text('[{"role": "god"}]')
    told = phi4mini("chat", *DEMO, stdin=f"/load {tmp_path / 'no.json'}\n/load\n/save\n".encode())
    assert told.returncode == 0 and "messages[0]." in told.stderr and "/load needs a file" in told.stderr


class Terminal:
    """A program in a terminal of its own; `wait_for` reads until a text shows, `type` sends keys."""

    def __init__(self, *arguments: str, home: str) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(COMMAND[0], [*COMMAND, *arguments], environment(TERM="xterm-256color", PHI4MINI_HOME=home))
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.shown = b""

    def wait_for(self, text: bytes, seconds: float = 60) -> None:
        end, seen = time.monotonic() + seconds, len(self.shown)
        while text not in self.shown[seen:]:
            assert time.monotonic() < end, f"{text!r} did not come; the terminal shows {self.shown[seen:]!r}"
            if select.select([self.descriptor], [], [], 0.1)[0]:
                new = self.read()
                assert new, f"{text!r} did not come before the program ended: {self.shown!r}"
                if b"\x1b[6n" in new:  # the editor asks where the cursor is
                    self.type(b"\x1b[1;1R")
                self.shown += new

    def read(self) -> bytes:
        """What the program has shown; empty when it has ended."""
        try:
            return os.read(self.descriptor, 1 << 16)
        except OSError:
            return b""

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def end(self) -> int:
        """The exit code, once the program has ended."""
        while new := self.read():
            self.shown += new
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forkpty beside NumPy's threads; we exec at once
def test_the_line_editor_answers_stops_and_leaves(home, demo_gguf, demo_store):
    for folder, file in (("stores", demo_store("f32")), ("models", demo_gguf)):
        (home / folder).mkdir(exist_ok=True)
        (home / folder / file.name).symlink_to(file)
    talk = Terminal("chat", *DEMO, "--ignore-eos", home=str(home))
    try:
        talk.wait_for(b">>>")
        talk.type(b"Tell a story.\r")
        talk.wait_for(b"Once")
        talk.type(b"\x03")
        talk.wait_for(b"stopped")
        talk.wait_for(b">>>")
        talk.type(b"/stats\r")
        talk.wait_for(b"seed")
        talk.wait_for(b">>>")
        talk.type(b"\x04")
        assert talk.end() == 0
    except BaseException:
        os.kill(talk.pid, signal.SIGKILL)
        raise
    finally:
        os.close(talk.descriptor)
    history = home / "chat_history"
    assert "+Tell a story." in history.read_text() and history.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("", ""),
        ("One line", ""),
        ("One line\n", ""),
        ("A block.\n\n", "A block.\n\n"),
        ("A block.\n\nAnother", "A block.\n\n"),
        ("```\ncode\n\nmore\n", ""),
        ("```\ncode\n\nmore\n```\n\nend", "```\ncode\n\nmore\n```\n\n"),
        ("````\n```\n\n````\n\n", "````\n```\n\n````\n\n"),
        ("~~~\n```\n\n", ""),
    ],
)
def test_a_markdown_block_is_finished_at_a_blank_line_outside_code(text, done):
    assert text[: finished(text)] == done
