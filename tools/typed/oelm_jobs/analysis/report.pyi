from analysis.report import *
