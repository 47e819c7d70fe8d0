from analysis.audit.choice import *
