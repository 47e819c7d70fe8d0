from analysis.audit.lock import *
