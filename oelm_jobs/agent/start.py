"""Becomes ``__main__.py`` of the folder that holds the agent on a target: ``python FOLDER VERB`` runs it without
installing anything.
"""

import sys

if sys.version_info < (3, 8):  # which could not even read the modules
    sys.exit("oelm-jobs needs Python 3.8 or newer on the target; this is %s" % sys.version.split()[0])

from agent.__main__ import main  # type: ignore[import-not-found]  # its name there

sys.exit(main(sys.argv[1:]))
