#!/bin/sh
# The demo, in the README's words: token files, three groups, a report, a few lines of text from each group.
#
#   tools/demo.sh VENV [TARGET]
#
# Runs that are done are left alone, so that it can be interrupted and run again. Exit code 1 when a run failed.
set -eu

bin=$1/bin
target=${2:-local}
step() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
[ -t 2 ] || step() { printf '\n== %s\n' "$*" >&2; }

step "1/4  Token files from six novels"
"$bin/oelm-data" demo

step "2/4  Three groups and a speed trial, as many at a time as there are cores (about three minutes on two; Ctrl-C leaves them running)"
send=
[ "$target" = local ] || send=--send-data
status=0
"$bin/oelm-submit" --study demo --target "$target" ${send:+"$send"} --mode parallel --wait || status=$?
[ "$status" -le 1 ] || exit "$status"
[ "$target" = local ] || "$bin/oelm-fetch" demo

step "3/4  The report"
"$bin/oelm-report" --study demo --plot

step "4/4  What each group writes after 'She was'"
for group in gpt_base oelm_no_freeze oelm_freeze; do
    model=models/checkpoints/demo/exp_$group/best_model.pt
    [ -f "$model" ] || continue
    printf '\n%s:\n' "$group"
    OMP_NUM_THREADS=1 "$bin/python" -m oelm_jobs.train.sample "$model" --prompt "She was" --max_new_tokens 60 | sed 's/^/    /'
done

cat >&2 <<TEXT

Where everything is
  experiments/demo/analysis/    the report: tables, verdicts, figures (report.html holds it all in one page)
  models/checkpoints/demo/      the runs: logs, metrics, checkpoints

TEXT
[ "$target" != local ] || cat >&2 <<TEXT

What to try next (first: . $1/bin/activate)
  oelm-status                   where the runs stand
  oelm-submit --study demo --num-seeds 3 --mode parallel    more seeds: intervals instead of points
  oelm-doctor                   what this machine lacks for the reference study
  oelm-submit --dry-run         the reference study's plan
TEXT
exit "$status"
