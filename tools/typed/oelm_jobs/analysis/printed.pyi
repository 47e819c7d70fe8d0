from analysis.printed import *
