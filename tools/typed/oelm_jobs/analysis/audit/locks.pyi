from analysis.audit.locks import *
