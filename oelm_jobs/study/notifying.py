"""Read what is told of runs: ``[notify]`` of a study, or of the user's own configuration."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from .. import names, tomlfile
from ..agent import verbs
from ..agent.sentences import _
from ..errors import valid_choices
from ..folders import config_folder
from ..spec.notify import Notify, Webhook
from ..spec.study import Study

CONFIGURATION = "config.toml"
"""The user's own configuration, beside targets.toml."""
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LEAST_STALL_S = 60.0
"""A run that says nothing for less is none that stands still."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([smhd])")


def of_study(study: Study) -> Notify:
    """Return what is told of a study's runs: what the study says, else what the user's configuration says.

    Raises:
        ConfigurationError: That is off.
    """
    return study.notify if study.notify is not None else of_user()


def path() -> Path:
    """Return the file of the user's configuration, which need not exist."""
    return config_folder() / CONFIGURATION


def of_user() -> Notify:
    """Return what the user's configuration says.

    Raises:
        ConfigurationError: It is off.
    """
    if not path().is_file():
        return Notify()
    top, found = tomlfile.read(path()), Notify()
    with top.all_at_once():
        if "notify" in top:
            found = read_notify(top.take_section("notify"))
        top.finish(["notify"])
    return found


def read_notify(section: tomlfile.Section) -> Notify:
    """Read a table of what is told, noting what is wrong."""
    on = section.take_list("on", str, ())
    section.wrong_items("on", ((each, valid_choices(each, verbs.EVENTS)) for each in on if each not in verbs.EVENTS))
    stalled_after_s = _read_duration(section, "stalled_after")
    if 0 < stalled_after_s < LEAST_STALL_S:
        section.wrong("stalled_after", _("give a minute at least"))
    if ("stalled" in on) is not bool(stalled_after_s) and not section.is_wrong("on"):
        why = _("is missing: after how long without progress a run counts as stalled, as in '30m'")
        if stalled_after_s:
            why = _("means nothing unless on names 'stalled'")
        section.wrong("stalled_after", why)
    webhook = _take_webhook(section) if "webhook" in section else None
    mail = section.take("mail", str, "")
    if mail and verbs.NOTIFY.may["mail"].wrong(mail):
        section.wrong("mail", _("give one address, as in 'me@example.org'"), value=mail)
    command = section.take_list("command", str, ())
    if "" in command or any(names.why_not_line(word) for word in command):
        section.wrong("command", _("give a program and its arguments, each as text"), value=list(command))
    if on and not (webhook or mail or command) and section.is_right:
        section.wrong("on", _("nobody is told: give webhook, mail or command, or on = []"), value=list(on))
    section.finish()
    return Notify(
        on=tuple(dict.fromkeys(on)), stalled_after_s=stalled_after_s, webhook=webhook, mail=mail, command=command
    )


def _read_duration(section: tomlfile.Section, key: str) -> float:
    text = section.take(key, str, "")
    match = _DURATION.fullmatch(text)
    if text and (match is None or not float(match[1])):
        section.wrong(key, _("give a time with its unit, s, m, h or d, as in '30m'"), value=text)
    return float(match[1]) * UNITS_S[match[2]] if match else 0.0


def _take_webhook(section: tomlfile.Section) -> Webhook | None:
    """Take the table; what stands in its place may be an address, and is not shown."""
    value = section.take_any("webhook")
    if isinstance(value, dict):
        return _read_webhook(section.below("webhook", value))
    why = _("must be a table, as in webhook = {example}", '{ form = "slack", url_file = "~/slack" }')
    section.wrong("webhook", why, hint=_advice("url_file"))
    return None


def _read_webhook(section: tomlfile.Section) -> Webhook:
    """Take where is posted; what is secret is named, and stands nowhere."""
    form = section.take("form", str, choices=verbs.FORMS)
    found: dict[str, str] = {}
    for what in ("url", "token"):
        by_file, by_variable = f"{what}_file", f"{what}_env"
        given = [key for key in section.keys_left() if key in (by_file, by_variable, what)]
        for key in (by_file, by_variable):
            found[key] = section.take(key, str, "")
        if found[by_variable] and verbs.VARIABLE.wrong(found[by_variable]):
            section.wrong(by_variable, _("give the name of an environment variable"), value=_shown(found[by_variable]))
        if "://" in found[by_file]:
            section.wrong(by_file, _("give the path of a file that holds it"), value=_shown(found[by_file]))
        elif why := names.why_not_path(found[by_file]):
            section.wrong(by_file, why, value=_shown(found[by_file]))
        if len(given) > 1:
            section.wrong(given[1], _("{key} says it already: give one of them", given[0]))
    if "token" in section.keys_left():
        section.take_any("token")
        section.wrong("token", _("no secret belongs in a file that is shared"), hint=_advice("token_file"))
    webhook = Webhook(form=form, url=section.take("url", str, ""), **found)
    if webhook.url and (why := _why_no_literal(webhook)):
        section.wrong("url", why, hint=_advice("url_file"))
    elif not (webhook.url or webhook.url_env or webhook.url_file):
        section.lacks("url_file", _("is missing: name what holds the address, as url_file = PATH or url_env = NAME"))
    section.finish(are_secret=True)
    return webhook


def _advice(key: str) -> str:
    return _("put it into a file of yours where the runs are, chmod 600 that, and name it: {key} = PATH", key)


def _shown(text: str) -> str:
    """Return a value that may be a secret by mistake as it may be shown."""
    return text if len(text) < 20 and "://" not in text else text[:4] + "…"


def _why_no_literal(webhook: Webhook) -> str:
    """Return why an address may not stand in a file; empty where it may: who knows that of a webhook may post to it.
    One of this machine's own is none, nor is a topic of ntfy's where that takes a token.
    """
    url = webhook.url
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or not url.isascii() or not url.isprintable() or " " in url:
        return _("give an address that begins with https://")
    is_own = host in ("localhost", "::1") or re.fullmatch(r"127\.\d+\.\d+\.\d+", host)
    has_token = webhook.form == "ntfy" and (webhook.token_env or webhook.token_file)
    if (is_own or has_token) and not parts.username and not parts.password and not parts.query:
        return ""
    return _("an address is a secret: who knows it may post there, and this file is shared")
