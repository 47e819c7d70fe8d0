"""The frozen dataclasses of studies, runs and targets, in the terms of docs/architecture.md.

What a field's docstring says is what docs/reference says of the key of that name (tools/reference): it is written for
users.
"""
