"""What is to be told of runs, and on which ways."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, TypedDict

from .target import Root, _EnvironmentMay


class _WebhookMay(TypedDict, total=False):
    url: str
    """An address without a secret."""
    url_env: str
    url_file: str
    token_env: str
    token_file: str


class Webhook(_WebhookMay):
    """Where to post; addresses and tokens by the names of variables and files that hold them."""

    form: str


class _NotifyMay(TypedDict, total=False):
    webhook: Webhook
    mail: str
    command: Sequence[str]


class Notify(_NotifyMay):
    """What is told, and the ways."""

    on: Sequence[str]
    stalled_after_s: float


class NotifyRequest(Root, _EnvironmentMay):
    """A request to tell of a study's runs."""

    study: str
    project: str
    target: str
    slurm: bool
    notify: Notify
    runs: Mapping[str, str]
    """Run directory to the token of its submission."""


class NotifyAnswer(TypedDict):
    """Where that is kept, and the ways on which nothing can be sent from there."""

    folder: str
    wrong: Dict[str, str]


class NotifyTestRequest(Root, _EnvironmentMay):
    """A request to look at the ways, and to send a test on each where ``sends`` says so."""

    notify: Notify
    target: str
    sends: bool


class NotifyTestAnswer(TypedDict):
    """What came back, by way; ``wrong`` where nothing was sent, or would be."""

    wrong: Dict[str, str]
    sent: Dict[str, str]
    unsent: List[str]
    """What of the root's runs was not told."""
