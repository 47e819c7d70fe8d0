"""Recognise files that hold keys, passwords or tokens, by name and by content."""

from __future__ import annotations

import re

from ..agent.sentences import _

FOLDERS = frozenset({".aws", ".azure", ".gnupg", ".kaggle", ".kube", ".password-store", ".ssh"})
"""Folders of which nothing is sent."""
NAMES = frozenset(
    {
        ".boto", ".comet.config", ".dockercfg", ".git-credentials", ".htpasswd", ".my.cnf", ".neptune", ".netrc",
        ".npmrc", ".pgpass", ".pypirc", ".s3cfg", ".vault-token", ".wandb_api_key", "_netrc",
        "application_default_credentials.json", "credentials", "credentials.json", "hf_token", "kaggle.json",
        "secrets.json", "secrets.toml", "secrets.yaml", "secrets.yml", "stored_tokens", "token.json",
        "wandb_api_key", "wandb_api_key.txt",
    }
)  # fmt: skip
"""Files that tools keep credentials in, in small letters."""
PLACES = (".config/gcloud/", ".docker/config.json", ".streamlit/secrets.toml", "huggingface/token", "wandb/settings")
"""Such files by the end, or with a slash at theirs any middle, of their path."""
SUFFIXES = (".jks", ".kdbx", ".key", ".keystore", ".p12", ".pem", ".pfx", ".ppk")
"""Endings of private keys and of stores of keys."""
_KEY_NAME = re.compile(r"id_(rsa|dsa|ecdsa|ed25519|xmss)(_sk)?([._-].*)?")
_SERVICE_ACCOUNT_NAME = re.compile(r"(client_secret|service[_-]?account).*\.json")
_MARK = b"PRIVATE KEY"
_HEADER = rb"-{4,5} ?BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)? ?-{4,5}"
# A header that stands on a line of its own, or has a key behind it where line ends are written as \n (JSON, say): a
# program that only speaks of such headers is none.
_KEY = re.compile(
    rb"^[ \t]*" + _HEADER + rb"[ \t]*\r?$|" + _HEADER + rb"(?:\\r|\\n|\s)+[A-Za-z0-9+/=]{16}", re.MULTILINE
)
_PUTTY = re.compile(rb"PuTTY-User-Key-File-\d")
_SERVICE_ACCOUNT = re.compile(rb'"type"\s*:\s*"service_account"')


def why_by_name(name: str) -> str:
    """Return why a file must not be sent, judged by its path (with ``/``); empty where it may be."""
    parts = name.lower().split("/")
    last = parts[-1]
    if any(part.startswith(".env") for part in parts) or last.endswith(".env"):
        return _("may hold passwords")
    if FOLDERS.intersection(parts[:-1]) or last in NAMES or _SERVICE_ACCOUNT_NAME.fullmatch(last):
        return _("holds credentials")
    path = "/" + "/".join(parts)
    if any("/" + place in path if place.endswith("/") else path.endswith("/" + place) for place in PLACES):
        return _("holds credentials")
    if last.endswith(SUFFIXES) or (_KEY_NAME.fullmatch(last) and not last.endswith(".pub")):
        return _("is a private key")
    return ""


def why_by_content(content: bytes) -> str:
    """Return why a file must not be sent, judged by its content; empty where it may be."""
    if _MARK in content and _KEY.search(content):
        return _("is a private key") if len(content) < 65536 else _("holds a private key")
    if content.startswith(b"PuTTY-User") and _PUTTY.match(content):
        return _("is a private key")
    if b'"service_account"' in content and _SERVICE_ACCOUNT.search(content) and b'"private_key"' in content:
        return _("holds credentials")
    return ""
