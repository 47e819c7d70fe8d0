from analysis.elsewhere import *
