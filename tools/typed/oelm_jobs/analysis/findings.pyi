from analysis.findings import *
