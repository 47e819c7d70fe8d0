from analysis.output.bundle_readme import *
