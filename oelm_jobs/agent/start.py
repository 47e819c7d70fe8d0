"""Becomes ``__main__.py`` of the folder that holds the agent on a target: ``python FOLDER VERB`` runs it without
installing anything.
"""

import sys

from agent.__main__ import main  # type: ignore[import-not-found]

sys.exit(main(sys.argv[1:]))
