"""What a webhook is sent, in the form that its service takes, and what its answer means.

The shapes are those of the services' own pages:

- slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, and for what is escaped
  https://docs.slack.dev/messaging/formatting-message-text
- feishu: https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot
- wecom: https://developer.work.weixin.qq.com/document/path/91770
- ntfy: https://docs.ntfy.sh/publish/
"""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, NamedTuple, Tuple

from ..sentences import _

MOST_BYTES = 2000
"""So long a text may be: WeCom takes 2048 bytes of UTF-8, ntfy makes a file of more than 4096."""
PRIORITIES = {"fail": "high", "stalled": "high"}
"""ntfy's, where it is not the default one."""


class Message(NamedTuple):
    """What is told."""

    event: str
    """``fail``, ``end``, ``stalled``, ``complete`` or ``test``."""
    title: str
    """One line, which says it all."""
    text: str
    """More lines; may be empty."""
    facts: Mapping[str, Any]
    """The same for programs."""

    def whole(self, most_bytes: int = MOST_BYTES) -> str:
        """Return title and text, cut to so many bytes of UTF-8."""
        return cut(self.title + ("\n" + self.text if self.text else ""), most_bytes)


def cut(text: str, most_bytes: int) -> str:
    """Return text cut to so many bytes of UTF-8, between characters."""
    content = text.encode("utf-8", "replace")
    return text if len(content) <= most_bytes else content[: most_bytes - 3].decode("utf-8", "ignore") + "…"


def body(form: str, message: Message) -> Tuple[bytes, Dict[str, str]]:
    """Return (content, headers) of the POST."""
    if form == "ntfy":
        headers = {"Title": _header(message.title), "Priority": PRIORITIES.get(message.event, "default")}
        return cut(message.text or message.title, MOST_BYTES).encode(), headers
    content: Dict[str, Any]
    if form == "slack":
        escaped = message.whole().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        content = {"text": escaped}
    elif form == "feishu":
        content = {"msg_type": "text", "content": {"text": message.whole()}}
    elif form == "wecom":
        content = {"msgtype": "text", "text": {"content": message.whole()}}
    else:
        content = as_json(message)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"), headers


def as_json(message: Message) -> Dict[str, Any]:
    """Return a message as an object: the form ``json``, and what a command reads."""
    return {"version": 1, "event": message.event, "title": message.title, "text": message.text, **message.facts}


def refusal(form: str, answer: bytes) -> str:
    """Return why a service that answered with success refused all the same; empty where it didn't. Feishu and WeCom
    say so in the answer's ``code`` and ``errcode``.
    """
    if form not in ("feishu", "wecom"):
        return ""
    try:
        said = json.loads(answer)
    except ValueError:
        return _("its answer is not understood")
    if not isinstance(said, dict):
        return _("its answer is not understood")
    code, words = ("errcode", "errmsg") if form == "wecom" else ("code", "msg")
    number = said.get(code, said.get("StatusCode"))
    return "" if number == 0 else _("{name} {number}: {words}", code, str(number), str(said.get(words, "")))


def _header(text: str) -> str:
    """Return text as a header's value holds it: encoded where it is not ASCII (RFC 2047)."""
    if text.isascii():
        return text
    from email.header import Header

    return Header(text, "utf-8", maxlinelen=10_000).encode(linesep="")
