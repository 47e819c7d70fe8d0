"""``[notify]`` in study files and in the user's configuration: what it may say, and how errors in it are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oelm_jobs.errors import ConfigurationError
from oelm_jobs.spec.notify import Notify, Webhook
from oelm_jobs.study import notifying
from oelm_jobs.study.files import read_study
from oelm_jobs.study.resolve import plan_runs
from oelm_jobs.targets.files import LOCAL
from tests.support import TINY_STUDY

TABLE = """
[notify]
on = ["fail", "end", "stalled"]
stalled_after = "30m"
webhook = { form = "slack", url_file = "~/.config/oelm-jobs/slack" }
mail = "me@example.org"
command = ["notify-send", "oelm-jobs"]
"""


def study(tmp_path: Path, table: str) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_STUDY + table)
    return path


def errors(path: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read_study(path)
    hints = [each.hint for each in raised.value.errors or (raised.value,)]
    return "\n".join([str(raised.value), *hints])


def test_a_study_says_what_is_told_and_how(tmp_path: Path) -> None:
    assert read_study(study(tmp_path, TABLE)).notify == Notify(
        on=("fail", "end", "stalled"),
        stalled_after_s=1800.0,
        webhook=Webhook(form="slack", url_file="~/.config/oelm-jobs/slack"),
        mail="me@example.org",
        command=("notify-send", "oelm-jobs"),
    )


def test_a_study_comes_before_the_users_configuration_and_may_ask_for_silence(tmp_path: Path) -> None:
    plain = read_study(study(tmp_path, ""))
    assert plain.notify is None and notifying.of_study(plain) == Notify()
    notifying.path().parent.mkdir(parents=True)
    notifying.path().write_text('[notify]\non = ["fail"]\nmail = "me@example.org"\n')
    assert notifying.of_study(plain) == Notify(on=("fail",), mail="me@example.org")
    assert notifying.of_study(read_study(study(tmp_path, "[notify]\non = []\n"))) == Notify()
    notifying.path().write_text('[notfy]\non = ["fail"]\n')
    with pytest.raises(ConfigurationError, match="config.toml:1: notfy: unknown key; did you mean 'notify'"):
        notifying.of_study(plain)


def test_what_is_told_is_no_part_of_a_run(tmp_path: Path) -> None:
    plain, told = read_study(study(tmp_path, "")), read_study(study(tmp_path, TABLE))
    target = replace(LOCAL, root=str(tmp_path))
    assert plan_runs(plain, target) == plan_runs(told, target)


def test_all_that_is_wrong_is_said_at_once_with_its_line_and_the_nearest_key(tmp_path: Path) -> None:
    said = errors(
        study(
            tmp_path,
            '[notify]\non = ["fial", "stalled"]\nmial = "x"\nmail = "nobody"\ncommand = [""]\n'
            '[notify.webhook]\nform = "slak"\nurlfile = "T0PSECRET"\n',
        )
    )
    assert "6 errors" in said
    for words in (
        "line 32: [notify] on = 'fial': did you mean 'fail'?",
        "line 33: [notify] mial = 'x': unknown key; did you mean 'mail'?",
        "line 34: [notify] mail = 'nobody': give one address",
        "line 35: [notify] command = ['']: give a program and its arguments",
        "[notify.webhook] form = 'slak': did you mean 'slack'?",
        "[notify.webhook] urlfile: unknown key; did you mean 'url_file'?",
    ):
        assert words in said
    assert "T0PSECRET" not in said


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('on = ["stalled"]\nmail = "a@b.c"', "stalled_after: is missing: after how long without progress"),
        ('on = ["fail"]\nmail = "a@b.c"\nstalled_after = "1h"', "means nothing unless on names 'stalled'"),
        ('on = ["stalled"]\nmail = "a@b.c"\nstalled_after = "30"', "give a time with its unit, s, m, h or d"),
        ('on = ["stalled"]\nmail = "a@b.c"\nstalled_after = "0.5m"', "stalled_after: give a minute at least"),
        ('on = ["fail"]', "nobody is told: give webhook, mail or command, or on = []"),
        ('webhook = { form = "json" }', "url_file: is missing: name what holds the address"),
        ('webhook = { form = "json", url_env = "A", url_file = "b" }', "url_env says it already: give one of them"),
        ('webhook = { form = "json", url_env = "https://x/T0PSECRET" }', "give the name of an environment variable"),
        ('webhook = { form = "json", url_file = "https://x/T0PSECRET" }', "give the path of a file that holds it"),
        ('webhook = { form = "json", url = "https://x.org/T0PSECRET" }', "an address is a secret"),
        ('webhook = { form = "json", url = "http://me:T0PSECRET@localhost/" }', "an address is a secret"),
        ('webhook = { form = "ntfy", url = "https://ntfy.sh/T0PSECRET" }', "url_file = PATH"),
        ('webhook = { form = "ntfy", token = "T0PSECRET", url_env = "A" }', "token_file = PATH"),
        ('webhook = "https://x.org/T0PSECRET"', "must be a table, as in webhook = { form"),
        ('mail = "-f@x"', "give one address"),
    ],
)
def test_what_is_wrong_is_named_and_a_secret_is_not_shown(tmp_path: Path, lines: str, words: str) -> None:
    said = errors(study(tmp_path, f"[notify]\n{lines}\n"))
    assert words in said and "T0PSECRET" not in said


@pytest.mark.parametrize(
    "webhook",
    [
        '{ form = "json", url = "http://localhost:8080/x" }',
        '{ form = "ntfy", url = "http://127.0.0.1/x" }',
        '{ form = "ntfy", url = "https://ntfy.example.org/runs", token_file = "~/ntfy" }',
    ],
)
def test_an_address_that_is_no_secret_may_stand_in_a_study(tmp_path: Path, webhook: str) -> None:
    notify = read_study(study(tmp_path, f"[notify]\nwebhook = {webhook}\n")).notify
    assert notify is not None and notify.webhook is not None and notify.webhook.url.startswith("http")
