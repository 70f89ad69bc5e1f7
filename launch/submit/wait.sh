# Waits for the ranks, started just before, and leaves their exit status in rc; script.py puts it into every script, from
# the first empty line on, and fills in SCRIPT_ALONE. told: what Slurm has told the script so far.
# shellcheck shell=bash disable=SC2034,SC2154

rc=143
[ -n "$told" ] || { wait $!; rc=$?; } # it may have been told before the ranks began
while [ -n "$told" ]; do # that ended the wait; ranks that do not leave soon are killed together with this script
  for _ in 1 2 3 4 5; do kill -0 $! 2> /dev/null && sleep 1; done
  kill -0 $! 2> /dev/null || { wait $!; rc=$?; break; }
  # but a job that still runs is not being ended: somebody told the script alone (`scancel --batch`)
  goes_on || break
  told=
  echo "SCRIPT_ALONE"
  scancel --signal=USR2 "$slurm_id"
  wait $!
  rc=$?
done
