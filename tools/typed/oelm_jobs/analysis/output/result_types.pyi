from analysis.output.result_types import *
