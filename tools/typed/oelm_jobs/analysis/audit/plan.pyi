from analysis.audit.plan import *
