"""What each service is sent is what its own page asks for, and what it answers is understood."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import verbs
from oelm_jobs.agent.notify import forms, ways
from tests.notify.server import Receiver, receiving, secret_file, stand_in_for_sendmail

FACTS = {"study": "tiny", "run": "a-s43", "state": "FAILED", "reason": "oom", "token": "oelm-1"}
FAILED = forms.Message("fail", "oelm-jobs: a-s43 FAILED: loss < 0 & > 1", "study tiny on box", FACTS)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def sent(receiver: Receiver, form: str, message: forms.Message = FAILED, **how: str) -> ways.Said:
    return ways.send("webhook", {"form": form, "url": receiver.url, **how}, message)


@pytest.mark.slow
def test_each_form_is_that_of_the_services_own_page(receiver: Receiver) -> None:
    """Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks (``text``), with ``&``, ``<``
    and ``>`` escaped (https://docs.slack.dev/messaging/formatting-message-text). Feishu:
    https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot (``msg_type``, ``content.text``). WeCom:
    https://developer.work.weixin.qq.com/document/path/91770 (``msgtype``, ``text.content``). ntfy:
    https://docs.ntfy.sh/publish/ (the text as it is; ``Title``, ``Priority``, a token as ``Authorization: Bearer``).
    """
    for form in ("json", "slack", "feishu", "wecom", "ntfy"):
        assert sent(receiver, form).is_sent
    whole = f"{FAILED.title}\n{FAILED.text}"
    own, slack, feishu, wecom, ntfy = receiver.posts
    assert own.json == {"version": 1, "event": "fail", "title": FAILED.title, "text": FAILED.text, **FACTS}
    assert slack.json == {"text": "oelm-jobs: a-s43 FAILED: loss &lt; 0 &amp; &gt; 1\nstudy tiny on box"}
    assert feishu.json == {"msg_type": "text", "content": {"text": whole}}
    assert wecom.json == {"msgtype": "text", "text": {"content": whole}}
    assert {post.headers["Content-Type"] for post in (own, slack, feishu, wecom)} == {"application/json; charset=utf-8"}
    assert ntfy.content == FAILED.text.encode()
    assert (ntfy.headers["Title"], ntfy.headers["Priority"]) == (FAILED.title, "high")
    assert {post.path for post in receiver.posts} == {"/hook/SECRET-7f3a9c"}


def test_there_is_a_form_for_each_that_a_study_may_name() -> None:
    assert all(forms.body(form, FAILED)[0] for form in verbs.FORMS)


@pytest.mark.slow
def test_a_long_text_is_cut_between_characters_and_a_title_that_is_not_ascii_is_encoded(receiver: Receiver) -> None:
    long = forms.Message("end", "完成", "字" * 3000, {})
    assert sent(receiver, "wecom", long).is_sent and sent(receiver, "ntfy", long).is_sent
    content = receiver.posts[0].json["text"]["content"]
    assert len(content.encode()) <= 2048 and content.startswith("完成\n字") and content.endswith("字…")
    assert receiver.posts[1].headers["Title"] == "=?utf-8?b?5a6M5oiQ?="
    assert len(receiver.posts[1].content) <= 4096


@pytest.mark.parametrize(
    ("form", "answer", "why"),
    [
        ("feishu", b'{"code": 19001, "msg": "param invalid"}', "HTTP 200, code 19001: param invalid"),
        ("wecom", b'{"errcode": 93000, "errmsg": "invalid webhook url"}', "errcode 93000: invalid webhook url"),
        ("wecom", b"<html>", "its answer is not understood"),
    ],
)
def test_a_refusal_that_comes_as_a_success_is_one(form: str, answer: bytes, why: str) -> None:
    with receiving(answer=answer) as receiver:
        said = sent(receiver, form)
    assert not said.is_sent and why in said.words


@pytest.mark.parametrize("status", [302, 403, 500])
def test_an_error_is_told_without_the_address_even_where_the_server_repeats_it(status: int) -> None:
    with receiving(status=status, answer=b"no such hook: /hook/SECRET-7f3a9c") as receiver:
        said = sent(receiver, "json")
    assert not said.is_sent and said.words == f"HTTP {status}: no such hook: …"
    assert len(receiver.posts) == 1, "no redirect is followed"


@pytest.mark.slow
def test_a_server_that_is_not_there_or_never_answers_costs_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    said = sent(Receiver(port=1), "json")
    assert not said.is_sent and "refused" in said.words and "SECRET" not in said.words
    monkeypatch.setattr(ways, "PATIENCE_S", 3.0)
    with receiving(holds=threading.Event()) as receiver:
        said = sent(receiver, "json")
    assert said.is_sent is None and "whether it arrived is not known" in said.words


@pytest.mark.slow
def test_a_server_that_cant_be_reached_in_time_was_sent_nothing() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as waiting:
        for _each in range(3):  # its queue is full: what more comes is dropped, as a firewall does
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}/SECRET"
        assert ways.send("webhook", {"form": "json", "url": url}, FAILED, 1.2).is_sent is False


def test_an_answer_that_breaks_off_after_success_is_one() -> None:
    with receiving(answer=b"ok", breaks_off=True) as receiver:
        assert sent(receiver, "json").is_sent
    assert len(receiver.posts) == 1


# Secrets --------------------------------------------------------------------------------------------------------------


def test_address_and_token_come_from_a_variable_or_from_a_file_that_is_ones_own(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", receiver.url)
    token = secret_file(tmp_path / "token", "tk_abcdef")
    assert ways.send("webhook", {"form": "ntfy", "url_env": "HOOK", "token_file": str(token)}, FAILED).is_sent
    assert receiver.posts[0].headers["Authorization"] == "Bearer tk_abcdef"
    address = secret_file(tmp_path / "address", receiver.url)
    assert ways.send("webhook", {"form": "json", "url_file": str(address)}, FAILED).is_sent


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_refused(receiver: Receiver, tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path / "address", receiver.url, mode)
    how = {"form": "json", "url_file": str(path)}
    said = ways.send("webhook", how, FAILED)
    assert said == (False, f"{path}: others may read it (mode {mode:04o}): chmod 600 {path}")
    assert ways.trouble("webhook", how) == said.words and not receiver.posts


@pytest.mark.parametrize(
    "said",
    ["/hook/SECRET-7f3a9c?key=TOK%2BEN99", "no robot TOK+EN99", "SECRET-7f3a9c is closed", "key TOK%2BEN99"],
)
def test_a_part_of_an_address_that_a_server_repeats_is_not_told_either(said: str) -> None:
    with receiving(status=403, answer=said.encode()) as receiver:
        how = {"form": "json", "url": receiver.url + "?key=TOK%2BEN99"}
        words = ways.send("webhook", how, FAILED).words
    assert words.startswith("HTTP 403: ") and not any(part in words for part in ("SECRET", "TOK", "EN99"))


def test_a_token_goes_to_no_other_machine_in_clear_text(tmp_path: Path) -> None:
    token = str(secret_file(tmp_path / "token", "tk_abcdef"))
    why = ways.trouble("webhook", {"form": "ntfy", "url": "http://ntfy.example.org/runs", "token_file": token})
    assert why == "a token is sent to an address that begins with https:// alone"
    for url in ("https://ntfy.example.org/runs", "http://localhost:80/runs", "http://127.0.0.1/runs"):
        assert not ways.trouble("webhook", {"form": "ntfy", "url": url, "token_file": token})


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"url_file": "/no/such"}, "/no/such: can't be read: No such file or directory"),
        ({"url_env": "NOT_SET"}, "the environment variable NOT_SET is not set here"),
        ({"url_env": "ODD"}, "ODD holds no address that begins with https://"),
        ({"url_env": "SPLIT"}, "SPLIT holds no address that begins with https://"),
    ],
)
def test_what_holds_no_address_is_named_and_not_shown(
    how: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "T0ken")
    monkeypatch.setenv("SPLIT", "https://x/a\r\nX: y")
    assert ways.trouble("webhook", {"form": "json", **how}) == why


# Mail and commands ----------------------------------------------------------------------------------------------------


def test_mail_goes_through_sendmail_and_the_address_is_in_no_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = stand_in_for_sendmail(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert ways.send("mail", "me@example.org", FAILED) == (True, "exit code 0")
    letter = letters.read_text()
    assert "To: me@example.org\n" in letter and f"Subject: {FAILED.title}\n" in letter and FAILED.text in letter
    assert "me@" not in (tmp_path / "bin" / "arguments").read_text()
    stand_in_for_sendmail(tmp_path / "bin", "echo 'no route' >&2; exit 69")
    assert ways.send("mail", "me@example.org", FAILED) == (False, "exit code 69: no route")


def test_a_command_reads_the_message_and_has_it_in_variables(tmp_path: Path) -> None:
    program = tmp_path / "tell"
    program.write_text(
        f'#!/bin/sh\necho "$1 $OELM_EVENT $OELM_RUN $OELM_STATE" > {tmp_path}/said; cat >> {tmp_path}/said'
    )
    program.chmod(0o755)
    assert ways.send("command", [str(program), "to me"], FAILED).is_sent
    first, content = (tmp_path / "said").read_text().split("\n", 1)
    assert first == "to me fail a-s43 FAILED" and '"reason": "oom"' in content
    assert ways.send("command", ["/no/such"], FAILED) == (False, "/no/such: no such program here")


def test_what_is_started_takes_signals_though_who_sends_ignores_them() -> None:
    import signal

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        said = ways.send("command", ["sh", "-c", "kill -TERM $$; sleep 60"], FAILED, 20.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert said == (False, "exit code -15")


@pytest.mark.slow
def test_a_message_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "PATIENCE_S", 10.0)
    words: list[Any] = ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600"]
    said = ways.send("command", words, FAILED)
    assert said.is_sent is None and "whether it arrived is not known" in said.words
    from oelm_jobs.agent import processes
    from tests.support import wait_until

    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not processes.start_time_of(pid), "the command to be ended")
