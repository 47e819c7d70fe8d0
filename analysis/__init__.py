"""Analysis of runs: tables, verdicts and figures from run directories."""
