# Waits for the ranks, started just before, and leaves their exit status in rc; script.py puts it into every script, from
# the first empty line on. told: what Slurm has told the script so far.
# shellcheck shell=bash disable=SC2034,SC2154

wait $!
rc=$?
if [ -n "$told" ]; then # that ended the wait; ranks that do not leave soon are killed together with this script
  for _ in 1 2 3 4 5; do kill -0 $! 2> /dev/null && sleep 1; done
  kill -0 $! 2> /dev/null || { wait $!; rc=$?; }
fi
