from analysis.output.checklist import *
