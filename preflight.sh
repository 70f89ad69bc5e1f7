#!/bin/sh
# One sentence and a non-zero exit for what would make the installation fail half-way. Usage: preflight.sh PYTHON
set -eu
python=$1
fail() { echo "cannot build .venv: $1" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is not installed; install Python 3.11 or newer, or run make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" -V) is too old; 3.11 or newer is needed, run make PYTHON=/path/to/python3.11"
"$python" -c 'import ensurepip' 2>/dev/null ||
    fail "$python has no ensurepip; on Debian run: apt-get install python3-venv"
"$python" -c '
import platform, sys
name, release = platform.libc_ver()
sys.exit(name == "glibc" and tuple(map(int, release.split(".")[:2])) < (2, 28))' ||
    fail "glibc is older than 2.28, which the wheels of torch and DALI need; use a newer system or a container"
free_gb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1000000) }')
[ -d .venv ] || [ "$free_gb" -ge 12 ] || fail "only $free_gb GB of disk are free here, 12 are needed"
if [ -r /proc/driver/nvidia/version ]; then
    driver=$(sed -n 's/.* \([0-9][0-9]*\)\.[0-9.]* .*/\1/p' /proc/driver/nvidia/version | head -n 1)
    [ -z "$driver" ] || [ "$driver" -ge 580 ] ||
        fail "NVIDIA driver $driver is older than 580, which CUDA 13 needs; update it, or hide the GPUs and accept the CPU path"
fi
